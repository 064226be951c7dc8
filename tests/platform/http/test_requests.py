"""What surrounds every request, tried on a plain ASGI application."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from service.platform.errors import cut
from service.platform.http.activities import Message, Receive, Scope, Send, activity
from service.platform.http.requests import around
from service.platform.identity import Caller
from service.platform.identity.caller import IN_SCOPE
from service.platform.telemetry.logs import configure_logs


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


def scope(**headers: str) -> Scope:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http",
        "method": "GET",
        "path": "/x",
        "query_string": b"secret=1",
        "headers": pairs,
        "client": ("9.9.9.9", 1),
    }


async def nothing() -> Message:
    return {"type": "http.disconnect"}


async def exchange(app: Any, scope: Scope) -> tuple[Mapping[bytes, bytes], list[Message]]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await around(app)(scope, nothing, send)
    return dict(sent[0]["headers"]), sent


async def test_every_response_carries_the_headers_and_a_new_id() -> None:
    headers, _ = await exchange(answer, scope())

    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert headers[b"content-security-policy"] == b"frame-ancestors 'none'"
    assert headers[b"cache-control"] == b"no-store"
    assert len(headers[b"x-request-id"]) == 16


async def test_what_a_response_says_itself_is_kept() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b""})

    headers, sent = await exchange(page, scope())

    assert headers[b"cache-control"] == b"max-age=60"
    assert [name for name, _ in sent[0]["headers"]].count(b"cache-control") == 1


@pytest.mark.parametrize("sane", ["abc", "a" * 64, "0b5e7a1c-9d2f.x:y_z"])
async def test_a_sane_id_of_the_caller_is_kept(sane: str) -> None:
    headers, _ = await exchange(answer, scope(x_request_id=sane))

    assert headers[b"x-request-id"] == sane.encode()


@pytest.mark.parametrize("insane", ["", "a" * 65, "a b", "a\nb", "ü"])
async def test_any_other_id_is_replaced(insane: str) -> None:
    headers, _ = await exchange(answer, scope(x_request_id=insane))

    assert len(headers[b"x-request-id"]) == 16
    assert headers[b"x-request-id"].isalnum()


async def test_one_line_at_the_end_and_never_the_query_string() -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await exchange(answer, scope(traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01"))

    [line] = lines
    assert line.pop("ms") >= 0
    assert len(line.pop("request_id")) == 16
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "route": "",
        "status": 200,
        "bytes": 5,
        "client": "9.9.9.9",
        "trace_id": "ab" * 16,
    }


@pytest.mark.parametrize(
    "wrong",
    [f"00-{'0' * 32}-{'cd' * 8}-01", f"00-{'ab' * 16}-{'0' * 16}-01", f"ff-{'ab' * 16}-{'cd' * 8}-01", "00-AB", ""],
)
async def test_what_is_no_traceparent_is_no_trace(wrong: str) -> None:
    with capture_logs() as lines:
        await exchange(answer, scope(traceparent=wrong))

    assert ["trace_id" in line for line in lines] == [False]


async def test_a_request_that_ends_without_an_answer_is_logged_as_aborted() -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        raise ConnectionError

    with capture_logs() as lines, pytest.raises(ConnectionError):
        await around(gone)(scope(), nothing, pytest.fail)

    assert [line["status"] for line in lines] == ["aborted"]


async def test_a_websocket_is_logged_when_it_opens_and_when_it_closes() -> None:
    async def talk(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.close", "code": 1012, "reason": "restart"})

    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hunter2"}])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        return

    with capture_logs() as lines:
        await around(talk)({**scope(), "type": "websocket"}, receive, send)

    assert [line["event"] for line in lines] == ["websocket opened", "websocket closed"]
    assert (lines[1]["received"], lines[1]["code"], lines[1]["reason"]) == (1, 1012, "restart")
    assert "hunter2" not in str(lines)


async def test_a_websocket_names_who_has_signed_in_and_what_is_at_work() -> None:
    said: list[str] = []

    async def talk(scope: Scope, receive: Receive, send: Send) -> None:
        scope[IN_SCOPE], scope["route"] = Caller(subject="ada", label="0f"), "/ws"
        said.append(str(activity.get()))
        await send({"type": "websocket.accept"})

    async def send(message: Message) -> None:
        return

    with capture_logs() as lines:
        await around(talk)({**scope(), "type": "websocket"}, nothing, send)

    assert said == ["websocket /ws"]
    assert [(line["event"], line.get("subject")) for line in lines][-1] == ("websocket closed", "0f")


async def test_a_websocket_that_a_handler_closes_and_has_not_accepted_is_logged_as_refused_with_403() -> None:
    """Which is what the server answers then (ASGI)."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})

    async def send(message: Message) -> None:
        return

    with capture_logs() as lines:
        await around(refuse)({**scope(), "type": "websocket"}, nothing, send)

    assert [(line["event"], line["status"]) for line in lines] == [("websocket refused", 403)]


@pytest.fixture
async def logged(capsys: pytest.CaptureFixture[str]) -> AsyncIterator[pytest.CaptureFixture[str]]:
    configure_logs("info", "json")
    yield capsys
    structlog.reset_defaults()
    logging.captureWarnings(False)


async def test_a_log_line_is_one_line_of_json_whatever_a_client_sends(logged: pytest.CaptureFixture[str]) -> None:
    nasty = {**scope(), "method": 'GET\n{"event": "forged"}\x1b[31m\u2028\ud800', "client": ("\x00", 1)}
    await exchange(answer, nasty)

    lines = logged.readouterr().err.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["method"] == nasty["method"]


async def test_a_method_of_any_length_is_a_short_word_of_the_line() -> None:
    with capture_logs() as lines:
        await exchange(answer, {**scope(), "method": "X" * 60_000})

    assert [line["method"] for line in lines] == [cut("X" * 60_000)]
    assert len(repr(lines)) < 1_000
