"""The parts of a path: what a view declares of them is what a request is held to, and what /openapi.json says."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import trio
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import Field
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_plain_validator_function
from quart import Blueprint, websocket
from quart.blueprints import BlueprintSetupState
from quart.views import MethodView, View
from werkzeug.routing import BaseConverter

from service.platform.feature import Feature, Resources
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import OPENAPI, Client
from service.platform.testing.fixtures import MakeSettings
from tests.platform.server.wire import TEXT as TEXT_FRAME
from tests.platform.server.wire import UPGRADE, Reader, upgrade

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}

type Name = Annotated[str, Field(pattern="^[a-z]{1,8}$", description="1 to 8 of a-z")]
type Small = Annotated[int, Field(ge=1, le=3, description="a whole number from 1 to 3")]


class DayConverter(BaseConverter):
    """A converter of a feature's own."""

    regex = r"\d{4}-\d{2}-\d{2}"

    def to_python(self, value: str) -> date:
        return date.fromisoformat(value)


class Opaque:
    """What only its converter knows how to make."""


class Hue:
    """A type that says itself what it takes, which no schema has words for."""

    def __init__(self, degrees: int) -> None:
        self.degrees = degrees

    @classmethod
    def parse(cls, text: str) -> "Hue":
        if not text.isdecimal() or int(text) >= 360:
            raise ValueError("must be whole degrees below 360")
        return cls(int(text))

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> CoreSchema:
        return no_info_plain_validator_function(cls.parse)


class OpaqueConverter(BaseConverter):
    regex = "(?P<odd>[a-f]+)"

    def to_python(self, _: str) -> Opaque:
        return Opaque()


@anyone
@unlimited("a test's")
class Items(MethodView):
    """A class of views."""

    async def get(self, name: Name) -> dict[str, str]:
        return {"name": name}


@anyone
@unlimited("a test's")
class Thing(View):
    """A view that is a class, with one method for all of HTTP's."""

    methods: ClassVar = ["GET", "PUT"]

    async def dispatch_request(self, small: Small) -> dict[str, int]:  # type: ignore[override]  # as in Quart's docs
        return {"small": small}


@asynccontextmanager
async def open_parts(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("parts", __name__)

    @routes.record_once
    def add_converters(state: BlueprintSetupState) -> None:
        state.app.url_map.converters |= {"day": DayConverter, "opaque": OpaqueConverter}

    @routes.get("/name/<name>")
    @anyone
    @unlimited("a test's")
    async def of_name(name: Name) -> dict[str, str]:
        return {"name": name}

    @routes.get("/small/<small>")
    @anyone
    @unlimited("a test's")
    async def of_small(small: Small) -> dict[str, int]:
        return {"one more": small + 1}

    @routes.get("/kind/<kind>")
    @anyone
    @unlimited("a test's")
    async def of_kind(kind: Literal["a", "b"]) -> dict[str, str]:
        return {"kind": kind}

    @routes.get("/hue/<hue>")
    @anyone
    @unlimited("a test's")
    async def of_hue(hue: Hue) -> dict[str, int]:
        return {"degrees": hue.degrees}

    @routes.get("/either/<name>", defaults={"small": 9})
    @routes.get("/either/<name>/<int:small>")
    @anyone
    @unlimited("a test's")
    async def of_either(name: Name, small: Small) -> dict[str, int]:
        return {name: small}

    @routes.get("/<shop>/orders/<int:seq>")
    @anyone
    @unlimited("a test's")
    async def of_order(shop: str, seq: int) -> dict[str, int]:
        return {shop: seq}

    @routes.get("/<string(length=2):country>/<float(signed=True):x>-<float:y>/<int(min=5, max=9):zoom>")
    @anyone
    @unlimited("a test's")
    async def of_map(country: str, x: float, y: float, zoom: Small) -> str:
        return ""

    @routes.get("/at/<float(signed=True):x>,<float:y>")
    @anyone
    @unlimited("a test's")
    async def of_place(x: float, y: float) -> list[float]:
        return [x, y]

    @routes.get("/at/<int:x>,<int:y>")
    @anyone
    @unlimited("a test's")
    async def of_square(x: int, y: int) -> list[float]:
        return [x, y, x * y]

    @routes.get('/any/<any("a:b>c", d):one>/<uuid:id>/<int(fixed_digits=4):year>')
    @anyone
    @unlimited("a test's")
    async def of_any(one: str, id: UUID, year: int) -> str:
        return f"{one} {id.hex} {year}"

    @routes.get("/day/<day:day>/<opaque:thing>/<path:rest>")
    @anyone
    @unlimited("a test's")
    async def of_day(day: date, thing: Opaque, rest: str) -> str:
        return f"{day.year} {type(thing).__name__} {rest}"

    @routes.route("/same/<one>", methods=["PUT", "DELETE"])
    @anyone
    @unlimited("a test's")
    async def of_same(one: str) -> str:
        return one

    @routes.get("/same/<int:other>")
    @anyone
    @unlimited("a test's")
    async def of_other(other: int) -> str:
        return str(other)

    @routes.websocket("/ws/<name>")
    @anyone
    @unlimited("a test's")
    async def talk(name: Name) -> None:
        await websocket.accept()
        await websocket.send(name)

    routes.add_url_rule("/items/<name>", view_func=Items.as_view("items"))
    routes.add_url_rule("/things/<small>", view_func=Thing.as_view("things"))
    yield routes


PARTS = Feature("parts", open=open_parts)


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/name/NAME", "name: must be 1 to 8 of a-z, not 'NAME'"),
        ("/name/a%0A", "name: must be 1 to 8 of a-z, not 'a\\n'"),
        ("/small/4", "small: must be a whole number from 1 to 3, not '4'"),
        ("/small/x", "small: must be a whole number from 1 to 3, not 'x'"),
        ("/kind/c", "kind: Input should be 'a' or 'b', not 'c'"),
        ("/hue/360", "hue: Value error, must be whole degrees below 360, not '360'"),
        ("/either/NAME", "name: must be 1 to 8 of a-z, not 'NAME'"),
        ("/either/a/7", "small: must be a whole number from 1 to 3, not '7'"),
        ("/items/NAME", "name: must be 1 to 8 of a-z, not 'NAME'"),
        ("/things/4", "small: must be a whole number from 1 to 3, not '4'"),
    ],
)
async def test_a_part_that_is_not_what_it_is_declared_to_be_is_named(
    make_settings: MakeSettings, path: str, detail: str
) -> None:
    async with booted(make_settings(**FREE), [PARTS]) as urls, Client(urls.public) as client:
        refused = await client.get(path)

    assert (refused.status_code, refused.json()["detail"]) == (400, detail)


async def test_a_view_gets_what_it_declares_and_defaults_are_its_own(make_settings: MakeSettings) -> None:
    id_ = "c9bf9e57-1685-4c89-bafb-ff5af830be8a"
    async with booted(make_settings(**FREE), [PARTS]) as urls, Client(urls.public) as client:
        answers = [
            await client.get("/small/2"),
            await client.get("/hue/120"),
            await client.get("/either/a"),
            await client.get("/either/a/3"),
            await client.get("/shop/orders/7"),
            await client.get(f"/any/a:b>c/{id_}/0042"),
            await client.get("/day/2026-01-02/abc/x/y"),
            await client.get("/items/abc"),
            await client.put("/things/3"),
        ]

    assert [answer.text.strip().replace(" ", "") for answer in answers] == [
        '{"onemore":3}', '{"degrees":120}', '{"a":9}', '{"a":3}', '{"shop":7}',
        f"a:b>c{id_.replace('-', '')}42", "2026Opaquex/y", '{"name":"abc"}', '{"small":3}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/at/-1,2", [-1, 2]),
        ("/at/1e-05,2E+2", [1e-5, 200]),
        ("/at/-0.5,2.25", [-0.5, 2.25]),
        ("/at/1,2", [1, 2, 2]),  # of two routes the one for whole numbers
        ("/at/1.,2", None),
        ("/at/1,1e999", None),  # no number that JSON has
        ("/at/nan,1", None),
        ("/at/٣,1.5", None),  # a digit to Python, and to nobody who reads the description
        ("/shop/orders/٣", None),
    ],
)
async def test_every_number_that_is_described_leads_to_its_route_and_nothing_else(
    make_settings: MakeSettings, path: str, told: list[float] | None
) -> None:
    async with booted(make_settings(**FREE), [PARTS]) as urls, Client(urls.public) as client:
        got = await client.get(path)

    assert (got.status_code, got.json()) == (200, told) if told else got.status_code == 404


async def test_a_websocket_is_held_to_its_path_before_the_upgrade(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [PARTS]) as urls:
        port = urlsplit(urls.public).port or 0
        with trio.fail_after(5):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                line = await upgrade(stream, "/ws/abc")
                said = await line.frame()
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(UPGRADE % (b"/ws/ABC", b""))
                status, _, body = await Reader(stream).response()

    assert said == (TEXT_FRAME, b"abc")
    assert (status, json.loads(body)["detail"]) == (400, "name: must be 1 to 8 of a-z, not 'ABC'")


@dataclass(frozen=True)
class Described:
    """A path of the document, and the schemas of its parts."""

    path: str
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    method: str = "get"


TEXT = {"type": "string", "minLength": 1}
WHOLE = {"type": "integer", "minimum": 0}
DESCRIBED = [
    Described("/{shop}/orders/{seq}", {"shop": TEXT, "seq": WHOLE}),
    Described(
        "/{country}/{x}-{y}/{zoom}",
        {
            "country": {"type": "string", "minLength": 2, "maxLength": 2},
            "x": {"type": "number"},
            "y": {"type": "number", "minimum": 0},
        },
    ),
    Described(
        "/any/{one}/{id}/{year}",
        {
            "one": {"type": "string", "enum": ["a:b>c", "d"]},
            "id": {"type": "string", "format": "uuid"},
            "year": {"type": "string", "pattern": "^-?[0-9]+$", "minLength": 4, "maxLength": 4},
        },
    ),
    Described(
        "/day/{day}/{thing}/{rest}",
        {
            "day": {"type": "string", "pattern": r"^(?:\d{4}-\d{2}-\d{2})$", "format": "date"},
            "thing": {"type": "string"},
            "rest": {**TEXT, "description": "may have slashes"},
        },
    ),
    Described("/same/{one}", {"one": TEXT}, "put"),
    Described("/same/{one}", {"one": TEXT}, "delete"),
    Described("/same/{one}", {"one": WHOLE}),
    Described("/kind/{kind}", {"kind": {**TEXT, "enum": ["a", "b"]}}),
    Described("/hue/{hue}", {"hue": TEXT}),
    Described("/either/{name}"),
    Described("/either/{name}/{small}"),
    Described("/items/{name}"),
]


async def test_any_legal_route_is_described_right(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [PARTS]) as urls, Client(urls.public) as client:
        document = (await client.get(OPENAPI)).json()

    OpenAPIV31SpecValidator(document).validate()
    operations = {(path, method): one for path, all_ in document["paths"].items() for method, one in all_.items()}
    assert len({one["operationId"] for one in operations.values()}) == len(operations)
    for wanted in DESCRIBED:
        parameters = operations[wanted.path, wanted.method]["parameters"]
        schemas = {parameter["name"]: parameter["schema"] for parameter in parameters}
        assert [f"{{{name}}}" in wanted.path for name in schemas] == [True] * wanted.path.count("{")
        assert {name: schemas[name] for name in wanted.parts} == wanted.parts
    zoom = operations["/{country}/{x}-{y}/{zoom}", "get"]["parameters"][3]["schema"]
    assert "allOf" in zoom or "$ref" in zoom
