"""Idempotency-Key: one effect and one answer for a request that is sent again, whatever came between."""

import datetime
import decimal
import math
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, TypedDict

import psycopg
import pytest
import sqlalchemy as sa
import structlog.testing
import trio
from pydantic.dataclasses import dataclass
from quart import Blueprint, Response
from quart_schema import validate_request
from sqlalchemy import Connection

from service.platform.database import open_database
from service.platform.errors import Invalid
from service.platform.feature import Feature, Resources
from service.platform.http import idempotency_store, idempotent, replies, run_once
from service.platform.http.idempotency import sweep
from service.platform.http.limits import unlimited
from service.platform.identity import anyone, signed_in
from service.platform.testing.booting import booted
from service.platform.testing.contract import OPENAPI, Client
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.issuer import AUDIENCE, open_issuer

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0", "rate_per_address": 0}


@dataclass(frozen=True)
class Order:
    item: str
    seconds: float = 0


class Number(TypedDict):
    number: int


RECEIPT: Any = {  # a Receipt once it is JSON
    "id": uuid.UUID(int=7),
    "at": datetime.datetime(2026, 11, 29, 10, tzinfo=datetime.UTC),
    "total": decimal.Decimal("1.10"),
    "order": Order("tea"),
}


class Receipt(TypedDict):
    id: str
    at: str
    total: str
    order: Order


def place(connection: Connection, *, order: Order) -> int:
    """Count an order; it may take its time, and one for nothing is refused after it has been counted."""
    number: int = connection.execute(
        sa.text("INSERT INTO placed (item) VALUES (:item) RETURNING number"), {"item": order.item}
    ).scalar_one()
    connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": order.seconds})
    if order.item == "nothing":
        raise Invalid("item: must be something")
    return number


@asynccontextmanager
async def open_orders(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("orders", __name__)

    @routes.post("/orders")
    @signed_in
    @unlimited("a test's")
    @idempotent
    @validate_request(Order)
    @replies(Number, 201)
    async def post_order(data: Order) -> Response:
        return await run_once(resources.database, lambda number: ({"number": number}, 201), place, order=data)

    @routes.post("/pairs")
    @anyone
    @unlimited("a test's")
    @idempotent
    @replies(Number, 201)
    async def post_pair() -> Response:
        await run_once(resources.database, lambda number: ({"number": number}, 201), place, order=Order("cup"))
        return await run_once(resources.database, lambda number: ({"number": number}, 201), place, order=Order("tea"))

    @routes.post("/twins")
    @anyone
    @unlimited("a test's")
    @idempotent
    async def post_twins() -> Response:
        async def order(item: str) -> None:
            slow = Order(item, seconds=20)  # whichever is refused, the other has not come to its commit
            answers.append(
                await run_once(resources.database, lambda number: ({"number": number}, 201), place, order=slow)
            )

        answers: list[Response] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(order, "cup")
            nursery.start_soon(order, "tea")
        return answers[0]

    @routes.get("/receipt")
    @anyone
    @unlimited("a test's")
    async def receipt() -> Receipt:
        found: Receipt = RECEIPT
        return found

    @routes.post("/receipts")
    @anyone
    @unlimited("a test's")
    @idempotent
    @replies(Receipt, 201)
    async def post_receipt() -> Response:
        return await run_once(resources.database, lambda _: (RECEIPT, 201), place, order=Order("tea"))

    @routes.post("/ratios")
    @anyone
    @unlimited("a test's")
    @idempotent
    async def post_ratio() -> Response:
        return await run_once(resources.database, lambda _: ({"ratio": math.nan}, 201), place, order=Order("tea"))

    yield routes


ORDERS = Feature("orders", open=open_orders)


@pytest.fixture
def orders_url(writable_database_url: str) -> str:
    with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE TABLE placed (number serial PRIMARY KEY, item text NOT NULL)")
    return writable_database_url


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


async def test_a_repeat_has_no_second_effect_and_gets_the_same_answer(
    make_settings: MakeSettings, orders_url: str
) -> None:
    settings = make_settings(**FREE, database_url=orders_url)
    async with (
        booted(settings, [ORDERS]) as one,
        booted(settings, [ORDERS]) as other,
        Client(one.public) as client,
        Client(other.public) as elsewhere,
    ):
        key = {"Idempotency-Key": "k-1"}
        first = await client.post("/orders", json={"item": "tea"}, headers=key)
        again = await client.post("/orders", json={"item": "tea"}, headers={"Idempotency-Key": '"k-1"'})
        there = await elsewhere.post("/orders", json={"item": "tea"}, headers=key)
        another_body = await client.post("/orders", json={"item": "milk"}, headers=key)
        another_query = await client.post("/orders?x=1", json={"item": "tea"}, headers=key)
        another_key = await client.post("/orders", json={"item": "tea"}, headers={"Idempotency-Key": "k-2"})
        without = [await client.post("/orders", json={"item": "tea"}) for _ in range(2)]
        paths = (await client.get(OPENAPI)).json()["paths"]

    assert [(one.status_code, one.content) for one in (again, there)] == [(201, first.content)] * 2
    assert ["idempotency-replayed" in one.headers for one in (first, again, there)] == [False, True, True]
    assert (another_body.status_code, another_query.status_code) == (422, 422)
    assert len({one.json()["number"] for one in (first, another_key, *without)}) == 4
    assert rows(orders_url, "SELECT count(*) FROM placed") == [(4,)]
    assert "Idempotency-Replayed" in paths["/orders"]["post"]["responses"]["201"]["headers"]
    assert "Idempotency-Replayed" not in paths["/receipt"]["get"]["responses"]["200"]["headers"]


async def test_the_log_tells_a_clash_of_keys_from_other_conflicts(make_settings: MakeSettings, orders_url: str) -> None:
    settings, key = make_settings(**FREE, database_url=orders_url), {"Idempotency-Key": "k"}
    lock = int.from_bytes(sha256(b"\0k").digest()[:8], signed=True)  # a guest's
    with structlog.testing.capture_logs() as lines:
        async with booted(settings, [ORDERS]) as urls, Client(urls.public) as client:
            with psycopg.connect(orders_url.replace("+psycopg", "")) as another_request:
                another_request.execute("SELECT pg_advisory_xact_lock(%s)", [lock])
                busy = await client.post("/orders", json={"item": "tea"}, headers=key)
            answers = [await client.post("/orders", json={"item": item}, headers=key) for item in ("tea", "milk")]

    assert [one.headers.get("retry-after") for one in (busy, *answers)] == ["1", None, None], "a client tells them, too"
    told = [(line["status"], line.get("reason")) for line in lines if line.get("route") == "/orders"]
    assert told == [(409, "idempotency"), (201, None), (422, "idempotency")]


async def test_an_answer_may_hold_what_that_of_any_route_may(make_settings: MakeSettings, orders_url: str) -> None:
    """A UUID is what the id of a row often is, and the effect was taken back by its answer, a 500."""
    async with booted(make_settings(**FREE, database_url=orders_url), [ORDERS]) as urls, Client(urls.public) as client:
        usual = await client.get("/receipt")
        key = {"Idempotency-Key": "k"}
        answers = [await client.post("/receipts", json={}, headers=given) for given in ({}, key, key)]

    assert [(one.status_code, one.json()) for one in answers] == [(201, usual.json())] * 3
    assert answers[2].headers["Idempotency-Replayed"] == "true"
    assert rows(orders_url, "SELECT count(*) FROM placed") == [(2,)]


async def test_an_answer_that_is_no_json_is_not_kept(make_settings: MakeSettings, orders_url: str) -> None:
    async with booted(make_settings(**FREE, database_url=orders_url), [ORDERS]) as urls, Client(urls.public) as client:
        answers = [await client.post("/ratios", json={}, headers={"Idempotency-Key": "k"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert rows(orders_url, "SELECT count(*) FROM placed") == [(0,)]


async def test_two_units_of_a_request_are_refused(make_settings: MakeSettings, orders_url: str) -> None:
    """The second found the answer of the first under its key, and was left out without a word."""
    async with booted(make_settings(**FREE, database_url=orders_url), [ORDERS]) as urls, Client(urls.public) as client:
        statuses = [
            (await client.post("/pairs", json={}, headers=headers)).status_code
            for headers in ({"Idempotency-Key": "k"}, {})
        ]

    assert statuses == [500, 500]


async def test_two_units_of_a_request_at_once_are_refused(make_settings: MakeSettings, orders_url: str) -> None:
    async with booted(make_settings(**FREE, database_url=orders_url), [ORDERS]) as urls, Client(urls.public) as client:
        statuses = [
            (await client.post("/twins", json={}, headers=headers)).status_code
            for headers in ({"Idempotency-Key": "k"}, {})
        ]

    assert statuses == [500, 500]
    assert rows(orders_url, "SELECT count(*) FROM placed") == [(0,)]


async def test_of_many_at_once_one_is_placed_and_the_others_are_told_to_come_again(
    make_settings: MakeSettings, orders_url: str
) -> None:
    statuses: list[int] = []
    async with booted(make_settings(**FREE, database_url=orders_url), [ORDERS]) as urls, Client(urls.public) as client:

        async def place_order() -> None:
            order = {"item": "tea", "seconds": 0.5}
            response = await client.post("/orders", json=order, headers={"Idempotency-Key": "k"})
            statuses.append(response.status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(place_order)
        await place_order()

    assert sorted(statuses) == [201, 201, *[409] * 7]
    assert rows(orders_url, "SELECT count(*) FROM placed") == [(1,)]


async def test_a_unit_that_fails_leaves_nothing_and_may_be_tried_again(
    make_settings: MakeSettings, orders_url: str
) -> None:
    async with booted(make_settings(**FREE, database_url=orders_url), [ORDERS]) as urls, Client(urls.public) as client:
        key = {"Idempotency-Key": "k"}
        refused = await client.post("/orders", json={"item": "nothing"}, headers=key)
        placed = await client.post("/orders", json={"item": "tea"}, headers=key)

    assert (refused.status_code, placed.status_code) == (400, 201)
    assert rows(orders_url, "SELECT item FROM placed") == [("tea",)]


async def test_a_cancelled_request_leaves_neither_effect_nor_answer(
    make_settings: MakeSettings, orders_url: str
) -> None:
    settings = make_settings(**FREE, database_url=orders_url, request_deadline=0.5)
    async with booted(settings, [ORDERS]) as urls, Client(urls.public) as client:
        key = {"Idempotency-Key": "k"}
        cut = await client.post("/orders", json={"item": "tea", "seconds": 20}, headers=key)
        answers = rows(orders_url, "SELECT count(*) FROM idempotency_answer")

    assert (cut.status_code, answers) == (504, [(0,)])
    assert rows(orders_url, "SELECT count(*) FROM placed") == [(0,)]


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, 'a"b', "a\\b"])
async def test_a_key_that_is_none_is_refused(make_settings: MakeSettings, orders_url: str, key: str) -> None:
    async with booted(make_settings(**FREE, database_url=orders_url), [ORDERS]) as urls, Client(urls.public) as client:
        response = await client.post("/orders", json={"item": "tea"}, headers={"Idempotency-Key": key})

    assert response.status_code == 400
    assert response.json()["detail"].startswith("Idempotency-Key: must be")


async def test_two_keys_are_none(make_settings: MakeSettings, orders_url: str) -> None:
    async with booted(make_settings(**FREE, database_url=orders_url), [ORDERS]) as urls, Client(urls.public) as client:
        answers = [
            await client.post("/orders", json={"item": "tea"}, headers=[("Idempotency-Key", key) for key in keys])
            for keys in (["a", "b"], ["a", ""], ["a", "a"], ['"a'], ['a"'])
        ]

    assert [answer.status_code for answer in answers] == [400] * 5
    assert rows(orders_url, "SELECT count(*) FROM placed") == [(0,)]


async def test_a_key_belongs_to_who_has_signed_in(make_settings: MakeSettings, orders_url: str) -> None:
    async with open_issuer() as issuer:
        settings = make_settings(**FREE, database_url=orders_url, auth_issuer=issuer.url, auth_audience=AUDIENCE)
        async with booted(settings, [ORDERS]) as urls, Client(urls.public) as client:
            answers = [
                await client.post(
                    "/orders",
                    json={"item": "tea"},
                    headers={"Idempotency-Key": "k", "Authorization": f"Bearer {issuer.token(sub=subject)}"},
                )
                for subject in ("ada", "bob", "ada")
            ]

    numbers = [answer.json()["number"] for answer in answers]
    assert numbers[0] == numbers[2] != numbers[1]


async def test_whose_a_key_is_has_to_hold_where_anyone_may_too_and_the_document_says_so(
    make_settings: MakeSettings, orders_url: str
) -> None:
    async with open_issuer() as issuer:
        settings = make_settings(**FREE, database_url=orders_url, auth_issuer=issuer.url, auth_audience=AUDIENCE)
        async with booted(settings, [ORDERS]) as urls, Client(urls.public) as client:
            headers = {"Authorization": f"Bearer {issuer.token(exp=1)}"}
            answers = [await client.post("/receipts", headers=headers | key) for key in ({"Idempotency-Key": "k"}, {})]

    assert [answer.status_code for answer in answers] == [401, 201]


async def test_an_answer_is_kept_for_a_day_and_then_swept(make_settings: MakeSettings, orders_url: str) -> None:
    settings = make_settings(**FREE, database_url=orders_url)
    async with booted(settings, [ORDERS]) as urls, Client(urls.public) as client, open_database(settings) as database:

        def age(hours: float) -> None:
            with psycopg.connect(orders_url.replace("+psycopg", ""), autocommit=True) as connection:
                seconds = hours * 3_600
                connection.execute("UPDATE idempotency_answer SET at = now() - make_interval(secs => %s)", (seconds,))

        async def number(key: str, hours: float) -> int:
            response = await client.post("/orders", json={"item": "tea"}, headers={"Idempotency-Key": key})
            age(hours)
            found: int = response.json()["number"]
            return found

        assert await number("k", 23.9) == await number("k", 24.1)
        deleted = await database.run(idempotency_store.delete_old_answers)
        assert (deleted, rows(orders_url, "SELECT * FROM idempotency_answer")) == (1, [])
        first = await number("k", 24.1)
        assert await number("k", 0) != first, "also one that is too old and not yet swept is none"


async def test_a_sweep_goes_on_until_nothing_is_left_that_is_too_old(
    make_settings: MakeSettings, orders_url: str
) -> None:
    def fill(connection: Connection, count: int) -> None:
        numbered = sa.text("""
            INSERT INTO idempotency_answer (key, fingerprint, status, body, at)
            SELECT int4send(n), '', 200, '', now() - interval '25 hours' FROM generate_series(1, :count) n""")
        connection.execute(numbered, {"count": count})

    async with open_database(make_settings(**FREE, database_url=orders_url)) as database:
        await database.run(fill, 2 * idempotency_store.MOST_DELETED + 1)
        await sweep(database)

    assert rows(orders_url, "SELECT * FROM idempotency_answer") == []


async def test_the_document_tells_of_the_key(make_settings: MakeSettings, orders_url: str) -> None:
    async with booted(make_settings(**FREE, database_url=orders_url), [ORDERS]) as urls, Client(urls.public) as client:
        operation = (await client.get("/openapi.json")).json()["paths"]["/orders"]["post"]

    assert [(one["name"], one["in"], one["required"]) for one in operation["parameters"]] == [
        ("Idempotency-Key", "header", False)
    ]
    assert {"409", "422"} <= operation["responses"].keys()
