"""`/openapi.json`: true to its specification, to the routes and to what they answer."""

import enum
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Annotated, Literal, TypedDict
from uuid import UUID

import httpx2
import pytest
import trio
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import AliasChoices, BaseModel, Field, computed_field, create_model
from pydantic.dataclasses import dataclass
from pydantic.json_schema import JsonSchemaMode
from quart import Blueprint, Response, after_this_request, jsonify
from quart_schema import validate_headers, validate_querystring, validate_request, validate_response

from service.features import FEATURES
from service.platform import errors
from service.platform.feature import Feature, Resources
from service.platform.http.limits import unlimited
from service.platform.http.openapi import add_document, replies
from service.platform.http.openapi.headers import headers_of
from service.platform.http.openapi.numbers import wanted_within
from service.platform.http.openapi.schemas import AnswerSchema, SparseSchema, json_schema
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import OPENAPI, Client
from service.platform.testing.fixtures import MakeSettings
from tests.platform.features import SLOW
from tests.platform.http.calls import calls_of

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}


async def test_it_is_openapi_and_has_every_public_endpoint(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), FEATURES) as urls, Client(urls.public) as client:
        answer = await client.get(OPENAPI)
        again = await client.get(OPENAPI, headers={"If-None-Match": answer.headers["etag"]})
        document = answer.json()

    OpenAPIV31SpecValidator(document).validate()
    assert {"/livez", "/readyz", "/healthz"} <= set(document["paths"])
    assert answer.headers["content-type"] == "application/json"
    assert (again.status_code, again.content) == (304, b"")
    assert len(identifiers(document)) == len(set(identifiers(document)))


def identifiers(document: dict[str, dict[str, dict[str, dict[str, str]]]]) -> list[str]:
    return [operation["operationId"] for path in document["paths"].values() for operation in path.values()]


async def test_a_document_that_is_not_the_one_meant_is_refused_as_documented(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), []) as urls, Client(urls.public) as client:
        tag = (await client.get(OPENAPI)).headers["etag"]
        served = [await client.get(OPENAPI, headers={"If-Match": given}) for given in (tag, f'"a", {tag}', "*")]
        refused = await client.get(OPENAPI, headers={"If-Match": '"another"'})

    assert [answer.status_code for answer in served] == [200, 200, 200]
    assert refused.headers["content-type"] == "application/problem+json"
    told = f"If-Match: must name {tag}, which is the document's ETag, or be *, not '\"another\"'"
    assert (refused.status_code, refused.json()["detail"]) == (412, told)


async def test_who_has_the_document_is_not_sent_it_again_whatever_else_he_asks(make_settings: MakeSettings) -> None:
    """RFC 9110, 13.2.2: If-None-Match comes after an If-Match that holds."""
    async with booted(make_settings(**FREE), []) as urls, Client(urls.public) as client:
        tag = (await client.get(OPENAPI)).headers["etag"]
        known = [
            await client.get(OPENAPI, headers={"If-Match": match, "If-None-Match": none})
            for match in (tag, "*")
            for none in (tag, f"W/{tag}", "*")
        ]
        other = await client.get(OPENAPI, headers={"If-Match": tag, "If-None-Match": '"another"'})
        refused = await client.get(OPENAPI, headers={"If-Match": '"another"', "If-None-Match": tag})

    assert [(answer.status_code, answer.content) for answer in known] == [(304, b"")] * 6
    assert {answer.headers["etag"] for answer in known} == {tag}
    assert (other.status_code, refused.status_code) == (200, 412)


async def test_it_obeys_the_rules_for_hosts(make_settings: MakeSettings) -> None:
    settings = make_settings(**FREE, allowed_hosts="example.org")
    async with booted(settings, []) as urls, httpx2.AsyncClient(base_url=urls.public) as client:
        refused = await client.get(OPENAPI)
        served = await client.get(OPENAPI, headers={"Host": "example.org"})

    assert (refused.status_code, served.status_code) == (421, 200)


class Wrong(TypedDict):
    number: int


@asynccontextmanager
async def open_lying(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("lying", __name__)

    @routes.get("/number")
    @anyone
    @unlimited("a test's")
    async def number() -> Wrong:
        return {"nombre": 1}  # type: ignore[typeddict-item, typeddict-unknown-key]  # the lie

    @routes.get("/status")
    @anyone
    @unlimited("a test's")
    @replies(Wrong)
    async def status() -> tuple[Wrong, int]:
        return {"number": 1}, 202

    yield routes


LYING = Feature("lying", open=open_lying)


@pytest.mark.parametrize("path", ["/number", "/status"])
async def test_an_answer_that_is_not_described_fails_its_test(make_settings: MakeSettings, path: str) -> None:
    async with booted(make_settings(**FREE), [LYING]) as urls, Client(urls.public) as client:
        with pytest.raises(AssertionError, match=r'"number" is a required property|answers 202'):
            await client.get(path)


@asynccontextmanager
async def open_removing(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("removing", __name__)

    @routes.delete("/number")
    @anyone
    @unlimited("a test's")
    @replies(None, 204)
    async def remove() -> tuple[str, int]:
        return "", 204

    yield routes


async def test_an_answer_without_a_body_is_described_as_one(make_settings: MakeSettings) -> None:
    removing = Feature("removing", open=open_removing)
    async with booted(make_settings(**FREE), [removing]) as urls, Client(urls.public) as client:
        removed = await client.delete("/number")
        document = (await client.get(OPENAPI)).json()

    assert (removed.status_code, removed.content) == (204, b"")
    assert "content" not in document["paths"]["/number"]["delete"]["responses"]["204"]


class Expired(errors.Refused):
    """A status that only this service has."""

    status = 498
    reason = "expired"


@asynccontextmanager
async def open_failing(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("failing", __name__)

    @routes.get("/thing/<name>")
    @anyone
    @unlimited("a test's")
    @replies(errors.Conflict)
    @replies(Expired)
    async def thing(name: str) -> Wrong:
        if name == "taken":
            raise errors.Conflict("it is")
        if name == "expired":
            raise Expired("it has gone")
        return {"number": 1}

    yield routes


@asynccontextmanager
async def open_untellable(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("untellable", __name__)

    @routes.get("/thing")
    @anyone
    @unlimited("a test's")
    async def thing() -> dict[str, Blueprint]:
        return {}

    yield routes


FAILING = Feature("failing", open=open_failing)


async def test_an_answer_is_described_beside_the_errors_that_its_route_declares(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [FAILING]) as urls, Client(urls.public) as client:
        answers = [await client.get("/thing/free"), await client.get("/thing/taken")]
        document = (await client.get(OPENAPI)).json()

    described = document["paths"]["/thing/{name}"]["get"]["responses"]
    assert [answer.status_code for answer in answers] == [200, 409]
    assert described["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Wrong"}
    assert "409" in described


async def test_a_status_without_a_name_is_described_as_it_is_answered(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [FAILING]) as urls, Client(urls.public) as client:
        answer = await client.get("/thing/expired")

    assert (answer.status_code, answer.json()["title"]) == (498, "Unknown Status")


async def test_a_document_that_cannot_be_made_is_an_error_that_names_the_route(
    make_settings: MakeSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(**FREE)
    async with booted(settings, [Feature("untellable", open=open_untellable)]) as urls, Client(urls.public) as client:
        with pytest.raises(AssertionError, match=r"^/openapi.json answers 500: the service's log says why$"):
            await client.get("/thing")

    assert "of what untellable.thing at /thing declares" in capfd.readouterr().out


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Line:
    day: date
    sizes: tuple[Decimal, ...] = ()


class Told(TypedDict):
    day: date
    at: datetime
    clock: time
    span: timedelta
    price: Decimal
    id: UUID
    colour: Colour
    names: frozenset[str]
    where: IPv4Address
    lines: list[Line]


TOLD: Told = {
    "day": date(2026, 1, 2),
    "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    "clock": time(3, 4, 5, tzinfo=UTC),
    "span": timedelta(days=1, hours=2),
    "price": Decimal("1.50"),
    "id": UUID(int=1),
    "colour": Colour.RED,
    "names": frozenset({"one"}),
    "where": IPv4Address("127.0.0.1"),
    "lines": [Line(date(2026, 1, 2), (Decimal("2.0"),))],
}


@asynccontextmanager
async def open_telling(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("telling", __name__)

    @routes.get("/typed")
    @anyone
    @unlimited("a test's")
    async def typed() -> Told:
        return TOLD

    @routes.get("/response")
    @anyone
    @unlimited("a test's")
    @replies(Told)
    async def response() -> Response:
        return jsonify(TOLD)

    @routes.get("/wrong")
    @anyone
    @unlimited("a test's")
    @replies(Told)
    async def wrong() -> dict[str, object]:
        return TOLD | {"day": "Fri, 02 Jan 2026 00:00:00 GMT"}

    @routes.get("/nan")
    @anyone
    @unlimited("a test's")
    async def nan() -> dict[str, float]:
        return {"it": -math.inf}

    @routes.get("/nan-response")
    @anyone
    @unlimited("a test's")
    async def response_of_nan() -> Response:
        return jsonify([math.nan])

    @routes.get("/none")
    @anyone
    @unlimited("a test's")
    async def none() -> dict[str, object]:
        return {"it": object()}

    yield routes


TELLING = Feature("telling", open=open_telling)


async def test_what_json_has_no_word_for_is_written_as_described(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [TELLING]) as urls, Client(urls.public) as client:
        told = [(await client.get(path)).json() for path in ("/typed", "/response")]
        with pytest.raises(AssertionError, match='is not a "date"'):
            await client.get("/wrong")
        impossible = await client.get("/none")

    assert told[0] == told[1]
    assert told[0] == {
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:05+02:00",
        "clock": "03:04:05Z",
        "span": "P1DT2H",
        "price": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
        "colour": "red",
        "names": ["one"],
        "where": "127.0.0.1",
        "lines": [{"day": "2026-01-02", "sizes": ["2.0"]}],
    }
    assert impossible.status_code == 500


@plain_dataclass(frozen=True)
class Place:
    name: str
    seen: date | None = None


class Order(BaseModel):
    number: Annotated[int, Field(serialization_alias="orderNumber")]
    where: Place
    lines: list[Line] = []

    @computed_field
    def count(self) -> int:
        return len(self.lines)


@dataclass
class Counted:
    order_count: Annotated[int, Field(description="all there are")]
    last: bool
    next_page: str | None = None


PLACE = Place("here")
ORDER = Order(number=1, where=PLACE, lines=[Line(date(2026, 1, 2), (Decimal("2.0"),))])


@asynccontextmanager
async def open_models(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("models", __name__)

    @routes.get("/place")  # type: ignore[type-var]  # Quart's types know of no model, and validate_response's say nothing
    @anyone
    @unlimited("a test's")
    async def place() -> Place:
        return PLACE

    @routes.get("/order")
    @anyone
    @unlimited("a test's")
    @validate_response(Order)
    async def order() -> Order:
        return ORDER

    @routes.get("/seen")  # type: ignore[type-var]  # the same
    @anyone
    @unlimited("a test's")
    async def seen() -> Order:
        after_this_request(lambda response: response)
        return ORDER

    @routes.get("/orders")
    @anyone
    @unlimited("a test's")
    async def orders() -> list[Order]:
        return [ORDER]

    @routes.get("/made")
    @anyone
    @unlimited("a test's")
    @validate_response(Order, 201)
    async def made() -> tuple[Order, int, dict[str, str]]:
        return ORDER, 201, {"Location": "/order"}

    @routes.get("/counted")
    @anyone
    @unlimited("a test's")
    @validate_response(Order, 200, Counted)
    async def counted() -> tuple[Order, int, Counted]:
        return ORDER, 200, Counted(order_count=3, last=False)

    yield routes


MODELS = Feature("models", open=open_models)


async def test_a_view_may_return_a_model_as_it_is(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [MODELS]) as urls, Client(urls.public) as client:
        place = await client.get("/place")
        orders = [await client.get(path) for path in ("/order", "/seen", "/made", "/orders")]
        document = (await client.get(OPENAPI)).json()

    told = {
        "orderNumber": 1,
        "where": {"name": "here", "seen": None},
        "lines": [{"day": "2026-01-02", "sizes": ["2.0"]}],
        "count": 1,
    }
    assert place.json() == {"name": "here", "seen": None}
    assert [answer.status_code for answer in orders] == [200, 200, 201, 200]
    assert [answer.json() for answer in orders] == [told, told, told, [told]]
    assert orders[2].headers["location"] == "/order"
    assert {answer.headers["content-type"] for answer in (place, *orders)} == {"application/json"}
    for path, name in (("/place", "Place"), ("/order", "Order"), ("/seen", "Order")):
        described = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
        assert described == {"schema": {"$ref": f"#/components/schemas/{name}"}}


async def test_a_model_of_headers_is_sent_and_described(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [MODELS]) as urls, Client(urls.public) as client:
        answer = await client.get("/counted")
        document = (await client.get(OPENAPI)).json()

    assert answer.status_code == 200
    assert (answer.headers["order-count"], answer.headers["last"]) == ("3", "false")
    assert "next-page" not in answer.headers
    described = document["paths"]["/counted"]["get"]["responses"]["200"]["headers"]
    assert {name: header["required"] for name, header in described.items()} == {
        "order-count": True, "last": True, "next-page": False, "X-Request-Id": True,
    }  # fmt: skip
    assert described["order-count"]["schema"] == {"type": "integer", "description": "all there are"}


@pytest.mark.parametrize("path", ["/nan", "/nan-response"])
async def test_a_number_that_json_has_no_word_for_is_never_sent(
    make_settings: MakeSettings, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with booted(make_settings(**FREE), [TELLING]) as urls, Client(urls.public) as client:
        answer = await client.get(path)

    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "ValueError: Out of range float values are not JSON compliant" in capsys.readouterr().out


type Small = Annotated[int, Field(ge=1, le=3, description="a whole number from 1 to 3")]


type Sizes = frozenset[Small]


@dataclass(frozen=True, kw_only=True)
class Asked:
    needed: Small
    plain: Annotated[str, Field(max_length=2)] = ""
    maybe: Small | None = None


@dataclass(frozen=True, kw_only=True)
class Several:
    tags: list[str] = field(default_factory=list)
    sizes: Sizes | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    width: Annotated[float, Field(description="a number")] = 0
    maybe: float | None = None
    either: Literal["auto"] | float = "auto"
    many: list[float] = field(default_factory=list)
    text: str | float = ""


@dataclass(frozen=True, kw_only=True)
class Part:
    weight: float


@dataclass(frozen=True, kw_only=True)
class Crate:
    kind: Literal["crate", "box"]
    holds: "list[Package]" = field(default_factory=list)
    weight: float = 1


class Soft(enum.StrEnum):
    BAG = "bag"
    SACK = "sack"


@dataclass(frozen=True, kw_only=True)
class Bag:
    kind: Literal[Soft.BAG, Soft.SACK]
    holds: "list[Package]" = field(default_factory=list)
    weight: str = ""


type Package = Annotated[Crate | Bag, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class Pallet:
    kind: Literal["pallet"] = "pallet"
    width: float


@dataclass(frozen=True, kw_only=True)
class Loose:
    kind: Soft
    width: str


@dataclass(frozen=True, kw_only=True)
class Plate:
    kind: Literal["plate"] = "plate"
    size: str


@dataclass(frozen=True, kw_only=True)
class Weighed:
    weight: float
    more: list[float] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    named: dict[str, float] | None = None
    text: str | float = ""
    note: str = ""
    size: int | float | Literal["auto"] | None = None
    one_or_many: float | list[float] | None = None
    by_code: dict[Annotated[str, Field(pattern="^[a-z]+$")], float] = field(default_factory=dict)
    package: Package | None = None
    load: Pallet | Loose | Plate | None = None


@dataclass(frozen=True, kw_only=True)
class Meeting:
    kind: Literal["meeting"]
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Note:
    kind: Literal["note"]
    at: str


@dataclass(frozen=True, kw_only=True)
class Dated:
    day: date
    maybe: datetime | None = None
    either: float | datetime | None = None
    several: list[time] = field(default_factory=list)
    entry: Annotated[Meeting | Note, Field(discriminator="kind")] | None = None
    lasts: timedelta | None = None
    number: int = 0
    when: datetime | Literal["now"] | None = None
    counts: dict[datetime, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Between:
    since: Annotated[date | None, Field(description="a day")] = None
    at: list[datetime] | None = None


@dataclass(frozen=True, kw_only=True)
class Sent:
    x_width: Annotated[float, Field(description="a number")] = 0
    x_since: datetime | None = None


@asynccontextmanager
async def open_strict(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("strict", __name__)

    @routes.get("/asked/<item>")
    @anyone
    @unlimited("a test's")
    @validate_querystring(Asked)
    async def asked(item: Small, query_args: Asked) -> dict[str, int]:
        return {str(item): query_args.needed}

    @routes.get("/several")
    @anyone
    @unlimited("a test's")
    @validate_querystring(Several)
    async def several(query_args: Several) -> dict[str, list[str] | list[int]]:
        return {"tags": query_args.tags, "sizes": sorted(query_args.sizes or ())}

    @routes.get("/measured/<part>")
    @anyone
    @unlimited("a test's")
    @validate_querystring(Measured)
    async def measured(part: float, query_args: Measured) -> dict[str, float | list[float] | str | None]:
        return {"part": part, "width": query_args.width, "many": query_args.many, "text": query_args.text}

    @routes.post("/told")
    @anyone
    @unlimited("a test's")
    @validate_request(Asked)
    async def told(data: Asked) -> dict[str, int]:
        return {"needed": data.needed}

    @routes.post("/dated")
    @anyone
    @unlimited("a test's")
    @validate_request(Dated)
    async def dated(data: Dated) -> dict[str, date]:
        return {"day": data.day}

    @routes.get("/between/<day>")
    @anyone
    @unlimited("a test's")
    @validate_querystring(Between)
    async def between(day: date, query_args: Between) -> dict[str, date]:
        return {"day": day}

    @routes.get("/sent")
    @anyone
    @unlimited("a test's")
    @validate_headers(Sent)
    async def sent(headers: Sent) -> dict[str, float]:
        return {"width": headers.x_width}

    @routes.post("/weighed")
    @anyone
    @unlimited("a test's")
    @validate_request(Weighed)
    async def weighed(data: Weighed) -> dict[str, float | str]:
        return {"sum": data.weight + sum(data.more) + sum(part.weight for part in data.parts), "text": data.text}

    yield routes


STRICT = Feature("strict", open=open_strict)


async def test_what_a_feature_declares_is_described_asked_for_and_explained(make_settings: MakeSettings) -> None:
    json = {"Content-Type": "application/json"}
    async with booted(make_settings(**FREE), [STRICT]) as urls, Client(urls.public) as client:
        taken = [await client.get("/asked/1?needed=2"), await client.post("/told", json={"needed": 3})]
        wrong = [
            await client.get("/asked/1?needed=4"),
            await client.get("/asked/1"),
            await client.get("/asked/1?needed=1&plain=long"),
            await client.post("/told", json={"needed": "x"}),
            await client.get("/asked/1?needed=1&maybe=4"),
            await client.post("/told", json={"needed": 1, "maybe": 4}),
            await client.post("/told", json=[]),
            await client.post("/told", content=b"{", headers=json),
            await client.post("/told", content=b"[" * 100_000, headers=json),
            await client.post("/told", content=b"[]", headers={"Content-Type": "text/plain"}),
            await client.post("/told", content=b" " * 2_000_000, headers=json),
        ]
        document = (await client.get(OPENAPI)).json()

    item, needed, plain, _ = document["paths"]["/asked/{item}"]["get"]["parameters"]
    assert [answer.status_code for answer in taken] == [200, 200]
    assert [answer.status_code for answer in wrong] == [*[400] * 9, 415, 413]
    assert [answer.json()["detail"] for answer in wrong[:6]] == [
        "needed: must be a whole number from 1 to 3, not '4'",
        "needed: is missing; must be a whole number from 1 to 3",
        "plain: String should have at most 2 characters, not 'long'",
        "needed: must be a whole number from 1 to 3, not 'x'",
        "maybe: must be a whole number from 1 to 3, not '4'",
        "maybe: must be a whole number from 1 to 3, not '4'",
    ]
    assert (item["in"], item["schema"]["maximum"], needed["required"], plain["required"]) == ("path", 3, True, False)


@pytest.mark.parametrize("generator", [AnswerSchema, SparseSchema])
@pytest.mark.parametrize(
    ("default", "described"),
    [(2**53 - 1, True), (2**53, False), (2**63 - 1, False), (1 - 2**53, True), (-(2**53), False), (True, True)],
)
def test_a_default_that_javascript_cannot_hold_is_not_described(
    generator: type[AnswerSchema], default: int, *, described: bool
) -> None:
    """Clients fill in what is described, and 2**63 - 1 comes back as 9223372036854776000, which is over the bound."""
    whole = create_model("Whole", number=(int, default))

    field, _ = json_schema(whole, generator=generator)

    assert ("default" in field["properties"]["number"]) is described


@pytest.mark.parametrize("mode", ["validation", "serialization"])
@pytest.mark.parametrize("generator", [AnswerSchema, SparseSchema])
def test_a_default_that_says_nothing_is_not_described(generator: type[AnswerSchema], mode: JsonSchemaMode) -> None:
    """Of a body's field with a default openapi-typescript makes one that has to be sent."""
    note = create_model("Note", text=(str, ...), id=(str | None, None), tags=(str | None, "a"))

    fields = json_schema(note, mode=mode, generator=generator)[0]["properties"]

    assert ["default" in fields[name] for name in ("text", "id", "tags")] == [False, False, True]


@pytest.mark.parametrize("generator", [AnswerSchema, SparseSchema])
def test_a_text_that_is_no_decimal_is_described_as_none(generator: type[AnswerSchema]) -> None:
    schema, _ = json_schema(Annotated[Decimal, Field(max_digits=12, decimal_places=2)], generator=generator)
    taken = [kind["pattern"] for kind in schema["anyOf"] if kind["type"] == "string"]

    texts = ("12.30", "-1", ".5", "1e2", "", "abc", "1.234")
    assert [[text for text in texts if re.search(pattern, text)] for pattern in taken] == [["12.30", "-1", ".5", "1e2"]]


async def test_what_a_javascript_client_fills_in_is_taken(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), FEATURES) as urls, Client(urls.public) as client:
        document = (await client.get(OPENAPI)).json()
        filled = {
            re.sub("{[^}]*}", "1", path): {
                one["name"]: int(float(one["schema"]["default"]))  # every number of JavaScript's is a double
                for one in operations["get"]["parameters"]
                if isinstance(one["schema"].get("default"), int)
            }
            for path, operations in document["paths"].items()
            if path.startswith("/api/") and "get" in operations
        }
        answers = [await client.get(path, params=query) for path, query in filled.items() if query]

    assert [answer.text for answer in answers if answer.status_code == 400] == []


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("", {"tags": [], "sizes": []}),
        ("tags=a", {"tags": ["a"], "sizes": []}),
        ("tags=a&tags=b&sizes=2", {"tags": ["a", "b"], "sizes": [2]}),
        ("tags[]=a&sizes=1&sizes=3", {"tags": ["a"], "sizes": [1, 3]}),
        ("tags=&other=1", {"tags": [""], "sizes": []}),
        ("tags=a&tags[]=b&sizes[]=1&sizes=3", {"tags": ["a", "b"], "sizes": [1, 3]}),
    ],
)
async def test_a_list_in_a_query_may_have_a_single_member(
    make_settings: MakeSettings, query: str, answer: dict[str, list[object]]
) -> None:
    """That is how its description has it sent: `?tags=a`."""
    async with booted(make_settings(**FREE), [STRICT]) as urls, Client(urls.public) as client:
        got = await client.get(f"/several?{query}")
        wrong = await client.get("/several?sizes=4")

    assert (got.status_code, got.json()) == (200, answer)
    assert wrong.status_code == 400


async def test_what_refuses_a_request_ahead_of_its_route_is_described_too(make_settings: MakeSettings) -> None:
    settings = make_settings(**FREE, rate_per_address=0.5, max_requests=1, request_deadline=0.5)
    async with booted(settings, [STRICT, SLOW]) as urls, Client(urls.public) as client:
        await client.get("/livez")  # which has the client read the document while it may
        foreign = await client.post("/told", json={"needed": 1}, headers={"Origin": "http://evil.example"})
        fast = [await client.post("/told", json={"needed": 1}) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, "/slow?seconds=5")
            await trio.sleep(0.2)
            crowded = await client.get("/asked/1?needed=1")
        late = await client.get("/slow?seconds=5")

    assert foreign.status_code == 403
    assert [answer.status_code for answer in fast].count(429) >= 1
    assert (crowded.status_code, late.status_code) == (503, 504)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in (fast[-1], crowded, late))


async def test_headers_that_are_too_large_are_refused_as_described(make_settings: MakeSettings) -> None:
    large = {"Cookie": "a" * 20_000}
    async with booted(make_settings(**FREE), [STRICT]) as urls, Client(urls.public) as client:
        refused = [await client.get(path, headers=large) for path in ("/asked/1?needed=1", "/livez")]
        paths = (await client.get(OPENAPI)).json()["paths"]

    assert [(answer.status_code, answer.content) for answer in refused] == [(431, b"")] * 2
    told = "Request line and headers are over 16384 bytes; there is no body"
    assert {paths[path]["get"]["responses"]["431"]["description"] for path in ("/asked/{item}", "/livez")} == {told}


@pytest.mark.parametrize(
    "error",
    [
        *(kind("") for kind in (errors.NotFound, errors.Unavailable, errors.RateLimited, errors.OutcomeUnknown)),
        *(kind("", sqlstate="42P01") for kind in (errors.DatabaseUnable, errors.DatabaseIncomplete)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_time_to_come_back_at_is_described_where_it_is_told(error: errors.ServiceError) -> None:
    assert ("Retry-After" in headers_of(type(error))) == ("Retry-After" in error.headers)


async def test_a_document_is_made_when_it_is_asked_for_and_only_once(make_settings: MakeSettings) -> None:
    made: list[int] = []

    async def make() -> bytes:
        made.append(len(made))
        await trio.sleep(0.05)
        if len(made) == 1:
            raise ValueError("the first time it cannot be made")
        return b"{}"

    @asynccontextmanager
    async def open_documented(_: Resources) -> AsyncIterator[Blueprint]:
        routes = Blueprint("documented", __name__)
        add_document(routes, "/made.json", make, {"Content-Type": "application/json"})
        yield routes

    documented = Feature("documented", open=open_documented)
    async with (
        booted(make_settings(**FREE), [documented]) as urls,
        httpx2.AsyncClient(base_url=urls.public) as client,
    ):
        before = len(made)
        failed = await client.get("/made.json")
        answers: list[httpx2.Response] = []

        async def ask() -> None:
            answers.append(await client.get("/made.json"))

        async with trio.open_nursery() as asking:
            for _ in range(8):
                asking.start_soon(ask)

    assert (before, failed.status_code, len(made)) == (0, 500, 2)
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"{}")}
    assert len({answer.headers["etag"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ("1?width=nan", "width: must be a number, not 'nan'"),
        ("1?width=-Infinity", "width: must be a number, not '-Infinity'"),
        ("1?width=1e999", "width: must be a number, not '1e999'"),
        ("1?maybe=inf", "maybe: must be a finite number, not 'inf'"),
        ("1?either=nan", "either: must be a finite number, not 'nan'"),
        ("1?many=1&many=nan", "many: must be a finite number, not 'nan'"),
        ("nan", "part: must be a finite number, not 'nan'"),
    ],
)
async def test_a_number_that_json_has_no_word_for_is_refused(
    make_settings: MakeSettings, asked: str, detail: str
) -> None:
    async with booted(make_settings(**FREE), [STRICT]) as urls, Client(urls.public) as client:
        refused = await client.get(f"/measured/{asked}")
        taken = await client.get("/measured/1.5?width=1e3&maybe=-2&many=3&text=nan&either=auto")

    assert (refused.status_code, refused.json()["detail"]) == (400, detail)
    assert taken.json() == {"part": 1.5, "width": 1000, "many": [3], "text": "nan"}


@pytest.mark.parametrize(
    ("body", "place", "text"),
    [
        ('{"weight": "nan"}', "weight", "nan"),
        ('{"weight": " -Infinity "}', "weight", " -Infinity "),
        ('{"weight": "1e999"}', "weight", "1e999"),
        ('{"weight": "\\u006ean"}', "weight", "nan"),
        ('{"weight": "\u2003nan"}', "weight", "\u2003nan"),
        ('{"weight": "-n_an"}', "weight", "-n_an"),
        ('{"weight": 1, "size": "nan"}', "size", "nan"),
        ('{"weight": 1, "one_or_many": "inf"}', "one_or_many", "inf"),
        ('{"weight": 1, "one_or_many": ["inf"]}', "one_or_many.0", "inf"),
        ('{"weight": 1, "by_code": {"a": "nan"}}', "by_code.a", "nan"),
        ('{"weight": 1, "more": [2, "inf"]}', "more.1", "inf"),
        ('{"weight": 1, "parts": [{"weight": "NaN"}]}', "parts.0.weight", "NaN"),
        ('{"weight": 1, "named": {"one": "nan"}}', "named.one", "nan"),
        ('{"weight": 1, "package": {"kind": "box", "weight": "nan"}}', "package.weight", "nan"),
        (
            '{"weight": 1, "package": {"kind": "bag", "holds": [{"kind": "crate", "weight": "inf"}]}}',
            "package.holds.0.weight",
            "inf",
        ),
        ('{"weight": 1, "load": {"kind": "pallet", "width": "inf"}}', "load.width", "inf"),
        ('{"weight": 1, "load": {"width": "inf"}}', "load.width", "inf"),
    ],
)
async def test_a_number_that_json_has_no_word_for_is_refused_in_a_body(
    make_settings: MakeSettings, body: str, place: str, text: str
) -> None:
    headers = {"Content-Type": "application/json"}
    right: dict[str, object] = {"weight": "1.5", "more": ["1e3"], "text": "nan", "note": "inf", "size": "auto"}
    right |= {"one_or_many": [1, "2"], "package": {"kind": "sack", "weight": "nan"}}
    right |= {"load": {"kind": "bag", "width": "inf"}}
    async with booted(make_settings(**FREE), [STRICT]) as urls, Client(urls.public) as client:
        refused = await client.post("/weighed", content=body, headers=headers)
        taken = await client.post("/weighed", json=right)

    assert (refused.status_code, refused.json()["detail"]) == (400, f"{place}: must be a finite number, not {text!r}")
    assert taken.json() == {"sum": 1001.5, "text": "nan"}


@pytest.mark.parametrize("tags", [{"kind": "box"}, {}, {"other": 1}])
def test_a_union_that_holds_itself_is_looked_at_once_and_not_twice_at_each_level(tags: dict[str, object]) -> None:
    """A body of 1 kB, which anybody may send, held the event loop for ever."""
    schema, definitions = json_schema(Weighed, generator=SparseSchema)

    def calls(depth: int) -> int:
        package: dict[str, object] = tags
        for _ in range(depth):
            package = {**tags, "holds": [package]}
        return calls_of(lambda: wanted_within({"package": package}, schema, definitions))

    assert calls(14) < 20 * calls(2)


class Named(BaseModel):
    id: int = Field(validation_alias=AliasChoices("id", "ID"))
    weight: float


class Titled(BaseModel):
    title: str
    weight: float


def test_a_kind_of_a_union_is_looked_at_also_where_a_field_goes_by_another_name() -> None:
    schema, definitions = json_schema(Named | Titled, generator=SparseSchema)

    assert wanted_within({"ID": 1, "weight": "inf"}, schema, definitions) == "a finite number"


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"day": 0}, "day: must be a date, such as 2026-01-31, not '0'"),
        ({"day": "0"}, "day: must be a date, such as 2026-01-31, not '0'"),
        ({"maybe": "2026"}, "maybe: must be a date and time, such as 2026-01-31T12:00:00Z, not '2026'"),
        ({"maybe": -1.5}, "maybe: must be a date and time, such as 2026-01-31T12:00:00Z, not '-1.5'"),
        ({"several": ["12:00", 5]}, "several.1: must be a time, such as 12:00:00, not '5'"),
        ({"lasts": 5}, "lasts: must be a duration, such as P1DT2H, not '5'"),
        ({"maybe": "1.5e3"}, "maybe: must be a date and time, such as 2026-01-31T12:00:00Z, not '1.5e3'"),
        ({"maybe": 1e22}, "maybe: must be a date and time, such as 2026-01-31T12:00:00Z, not '1e+22'"),
        ({"lasts": 1e-7}, "lasts: must be a duration, such as P1DT2H, not '1e-07'"),
        ({"when": 5}, "when: must be a date and time, such as 2026-01-31T12:00:00Z, not '5'"),
        ({"counts": {"2026": 1}}, "counts.2026: must be a date and time, such as 2026-01-31T12:00:00Z, not '2026'"),
        (
            {"entry": {"kind": "meeting", "at": "2026"}},
            "entry.at: must be a date and time, such as 2026-01-31T12:00:00Z, not '2026'",
        ),
    ],
)
async def test_a_number_is_no_moment(make_settings: MakeSettings, change: dict[str, object], detail: str) -> None:
    """To pydantic it is one, in seconds since 1970, and the description says nothing of that."""
    right = {
        "day": "2026-01-02",
        "maybe": "2026-01-02T03:04:05Z",
        "either": 5,
        "several": ["12:00"],
        "entry": {"kind": "note", "at": "2026"},
        "lasts": "PT5S",
        "number": 2026,
        "when": "now",
        "counts": {"2026-01-02T03:04:05Z": 1},
    }
    async with booted(make_settings(**FREE), [STRICT]) as urls, Client(urls.public) as client:
        refused = await client.post("/dated", json=right | change)
        taken = await client.post("/dated", json=right)

    assert (refused.status_code, refused.json()["detail"]) == (400, detail)
    assert (taken.status_code, taken.json()) == (200, {"day": "2026-01-02"})


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        ({"X-Width": "inf"}, "x-width: must be a number, not 'inf'"),
        ({"X_Width": "nan"}, "x-width: must be a number, not 'nan'"),
        ({"X-Since": "2026"}, "x-since: must be a date and time, such as 2026-01-31T12:00:00Z, not '2026'"),
    ],
)
async def test_what_json_has_no_word_for_and_a_number_for_a_moment_are_refused_in_a_header(
    make_settings: MakeSettings, header: dict[str, str], detail: str
) -> None:
    async with booted(make_settings(**FREE), [STRICT]) as urls, Client(urls.public) as client:
        refused = await client.get("/sent", headers=header)
        taken = await client.get("/sent", headers={"X-Width": "1.5", "X-Since": "2026-01-02T03:04:05Z"})

    assert (refused.status_code, refused.json()["detail"]) == (400, detail)
    assert (taken.status_code, taken.json()) == (200, {"width": 1.5})


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ("0", "day: must be a date, such as 2026-01-31, not '0'"),
        ("2026-01-02?since=86400", "since: must be a day, not '86400'"),
        (
            "2026-01-02?at=2026-01-02T03:04:05Z&at=2026",
            "at: must be a date and time, such as 2026-01-31T12:00:00Z, not '2026'",
        ),
    ],
)
async def test_a_number_is_no_moment_in_a_path_or_a_query(make_settings: MakeSettings, asked: str, detail: str) -> None:
    async with booted(make_settings(**FREE), [STRICT]) as urls, Client(urls.public) as client:
        refused = await client.get(f"/between/{asked}")
        taken = await client.get("/between/2026-01-02?since=2026-01-02&at=2026-01-02T03:04:05Z")

    assert (refused.status_code, refused.json()["detail"]) == (400, detail)
    assert taken.status_code == 200
