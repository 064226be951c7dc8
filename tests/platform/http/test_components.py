"""What `/openapi.json` says of types: of two with one name, and of one that is sent in another form than taken."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import field
from typing import Annotated, Any, TypedDict

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, Field
from pydantic.dataclasses import dataclass
from quart import Blueprint
from quart_schema import validate_headers, validate_request

from service.platform.errors import Conflict, ServiceError, Unavailable
from service.platform.feature import Feature, Resources
from service.platform.http.limits import unlimited
from service.platform.http.openapi import replies
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import OPENAPI, Client, problems_of
from service.platform.testing.fixtures import MakeSettings

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}


def make_items(kind: object) -> Any:
    """Return a list of a type that is called Item, as each feature of `make feature` has one."""
    item = type("Item", (BaseModel,), {"__annotations__": {"of": kind}, "__module__": __name__})
    return type("Items", (BaseModel,), {"__annotations__": {"items": list[item]}, "__module__": __name__})  # type: ignore[valid-type]  # made here


Orders, Returns = make_items(int), make_items(str)


def make_full(root: type[ServiceError]) -> type[ServiceError]:
    """Return an error that is called Full, of one kind or another."""
    return type("Full", (root,), {"__doc__": f"One of {root.__name__}."})


OrdersFull, ReturnsFull = make_full(Conflict), make_full(Unavailable)


class Problem(TypedDict):
    """Called as the platform's own."""

    sum: int


class Node(BaseModel):
    """Refers to itself, and is sent with more than it needs to be given."""

    name: str
    inner: list["Node"] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Tenant:
    x_tenant: Annotated[str, Field(pattern="^[a-z]+$", description="lower-case letters")]
    x_count: int | None = None
    x_many: int = field(default=1)


@asynccontextmanager
async def open_orders(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("orders", __name__)

    @routes.get("/orders")
    @anyone
    @unlimited("a test's")
    @replies(Orders)
    async def orders() -> dict[str, Any]:
        return {"items": [{"of": 1}]}

    @routes.get("/orders/full")
    @anyone
    @unlimited("a test's")
    @replies(OrdersFull)
    async def full() -> str:
        raise OrdersFull("no more orders")

    @routes.post("/nodes")
    @anyone
    @unlimited("a test's")
    @validate_request(Node)
    @replies(Node, 200, 201)
    async def nodes(data: Node) -> dict[str, Any]:
        return data.model_dump()

    yield routes


@asynccontextmanager
async def open_returns(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("returns", __name__)

    @routes.get("/returns")
    @anyone
    @unlimited("a test's")
    @replies(Returns)
    async def returns() -> dict[str, Any]:
        return {"items": [{"of": "one"}]}

    @routes.get("/returns/full")
    @anyone
    @unlimited("a test's")
    @replies(ReturnsFull)
    async def full() -> str:
        raise ReturnsFull("no more returns")

    @routes.get("/problems")
    @anyone
    @unlimited("a test's")
    async def problems() -> list[Problem]:
        return [{"sum": 1}]

    @routes.get("/tenant")
    @anyone
    @unlimited("a test's")
    @validate_headers(Tenant)
    async def tenant(headers: Tenant) -> dict[str, Any]:
        return {"tenant": headers.x_tenant}

    yield routes


BOTH = [Feature("orders", open=open_orders), Feature("returns", open=open_returns)]


@pytest.mark.parametrize("features", [BOTH, BOTH[::-1]], ids=["in order", "in the other"])
async def test_of_two_types_with_one_name_each_is_described_as_it_is(
    make_settings: MakeSettings, features: list[Feature]
) -> None:
    async with booted(make_settings(**FREE), features) as urls, Client(urls.public) as client:
        answers = [await client.get(path) for path in ("/orders", "/returns", "/problems", "/nowhere")]
        full = [await client.get(path) for path in ("/orders/full", "/returns/full")]
        document = (await client.get(OPENAPI)).json()

    OpenAPIV31SpecValidator(document).validate()
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404]
    assert [answer.status_code for answer in full] == [409, 503]
    assert {"Full", "Full2"} <= document["components"]["responses"].keys()
    schemas = document["components"]["schemas"]
    assert {"Item", "Item2", "Problem", "Problem2"} <= schemas.keys()
    assert all(schemas[name]["title"] == name for name in schemas if "title" in schemas[name]), (
        "clients are named by it"
    )
    assert "detail" in schemas["Problem"]["properties"]


async def test_what_is_taken_and_what_is_sent_of_one_type_are_described_each(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), BOTH) as urls, Client(urls.public) as client:
        answer = await client.post("/nodes", json={"name": "a", "inner": [{"name": "b"}]})
        document = (await client.get(OPENAPI)).json()

    operation = document["paths"]["/nodes"]["post"]
    taken = operation["requestBody"]["content"]["application/json"]["schema"]
    sent = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer.json() == {"name": "a", "inner": [{"name": "b", "inner": []}]}
    assert problems_of(taken, document, {"name": "a", "inner": [{"name": "b"}]}) == []
    assert problems_of(sent, document, {"name": "a", "inner": [{"name": "b"}]}) == ['"inner" is a required property']


async def test_what_is_taken_and_sent_has_a_name_which_two_statuses_share(make_settings: MakeSettings) -> None:
    """Makers of clients name a type by it; of two that are written out they leave out one, or the whole answer."""
    async with booted(make_settings(**FREE), BOTH) as urls, Client(urls.public) as client:
        paths = (await client.get(OPENAPI)).json()["paths"]

    responses = paths["/nodes"]["post"]["responses"]
    schemas = [responses[status]["content"]["application/json"]["schema"] for status in ("200", "201")]
    assert schemas == [{"$ref": "#/components/schemas/Node2"}] * 2
    answer = paths["/orders"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/Items"}


async def test_a_header_that_is_declared_is_described_asked_for_and_explained(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), BOTH) as urls, Client(urls.public) as client:
        taken = await client.get("/tenant", headers={"X-Tenant": "abc", "X-Count": "3"})
        wrong = [
            await client.get("/tenant", headers=headers)
            for headers in ({}, {"X-Tenant": "ABC"}, {"X-Tenant": "a", "X-Count": "x"})
        ]
        document = (await client.get(OPENAPI)).json()

    parameters = document["paths"]["/tenant"]["get"]["parameters"]
    assert taken.status_code == 200
    assert [answer.status_code for answer in wrong] == [400] * 3
    assert [answer.json()["detail"] for answer in wrong[:2]] == [
        "x-tenant: is missing; must be lower-case letters",
        "x-tenant: must be lower-case letters, not 'ABC'",
    ]
    assert wrong[2].json()["detail"].startswith("x-count: ")
    assert [(one["name"], one["in"], one["required"]) for one in parameters] == [
        ("x-tenant", "header", True),
        ("x-count", "header", False),
        ("x-many", "header", False),
    ]
    assert parameters[1]["schema"] == {"type": "integer"}
