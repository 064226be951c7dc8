"""`/asyncapi.json`: true to its specification, and to the frames that go over the wire."""

import json
from pathlib import Path

import httpx2
import pytest
from jsonschema_rs import Draft7Validator

from service.chat import asyncapi
from service.chat.protocol import Ack, Close, encode
from service.platform.testing.contract import Client
from tests.chat.conftest import Start
from tests.chat.frames import Described, check

ACK = Ack(id="i1", room="lobby", epoch="e1", seq=1, dup=False)
SEND = {"type": "send", "room": "lobby", "id": "i1", "text": "hi"}


async def test_it_is_asyncapi_and_has_every_frame_and_close_code(start: Start) -> None:
    service = await start()
    async with Client(service.url) as client:
        answer = await client.get("/asyncapi.json")
        again = await client.get("/asyncapi.json", headers={"If-None-Match": answer.headers["etag"]})
    document = answer.json()
    metaschema = json.loads((Path(__file__).parent / "asyncapi-3.0.0.json").read_text())
    channel = document["channels"]["structured"]

    assert [error.message for error in Draft7Validator(metaschema).iter_errors(document)] == []
    assert channel["messages"].keys() == {
        "join", "send", "leave", "ping", "pong",
        "hello", "joined", "ack", "message", "left", "presence", "error", "bye",
    }  # fmt: skip
    assert channel["x-close-codes"].keys() == {str(code.value) for code in Close}
    assert all(channel["x-close-codes"].values())
    assert (again.status_code, again.content) == (304, b"")


async def test_it_obeys_the_rules_for_hosts(start: Start) -> None:
    service = await start(allowed_hosts="example.org")
    async with httpx2.AsyncClient(base_url=service.url) as client:
        assert (await client.get("/asyncapi.json")).status_code == 421


@pytest.mark.parametrize("field", ["type", "id", "room", "epoch", "seq", "dup"])
def test_a_frame_with_a_renamed_field_fails_its_test(field: str) -> None:
    frame = json.loads(encode(ACK))
    check(False, json.dumps(frame))
    frame[field + "_"] = frame.pop(field)

    with pytest.raises(AssertionError):
        check(False, json.dumps(frame))


def test_a_field_that_is_described_and_not_there_or_there_and_not_described_fails_its_test() -> None:
    renamed = json.loads(json.dumps(asyncapi.document()).replace('"dup"', '"again"'))

    assert Described(renamed).problems_of("send", encode(ACK).decode())
    assert not Described(asyncapi.document()).problems_of("send", encode(ACK).decode())


def test_what_is_described_and_what_the_service_takes_must_agree() -> None:
    check(True, json.dumps(SEND))
    stricter = json.loads(json.dumps(asyncapi.document()).replace('"maxLength": 4000', '"maxLength": 1'))

    assert Described(stricter).problems_of("receive", json.dumps(SEND))
