"""A body of many values: what is wrong first is told, and the rest is not looked at."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic.dataclasses import dataclass
from quart import Blueprint
from quart_schema import validate_request

from service.platform.feature import Feature, Resources
from service.platform.http.limits import unlimited
from service.platform.http.openapi.many import failing_fast
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
COUNT = 5_000
looked_at: list[int] = []


def look(number: int) -> int:
    """Note who is asked, and refuse all but 0."""
    looked_at.append(number)
    if number:
        raise ValueError
    return number


type Small = Annotated[int, AfterValidator(look), Field(description="0")]


@dataclass(frozen=True, kw_only=True)
class Item:
    size: Small


class Parcel(BaseModel, defer_build=True):
    items: list[Item] = []
    type: str = "list"
    metadata: dict[str, Item] = {}


@dataclass(frozen=True, kw_only=True)
class Order:
    numbers: list[Small] | None = None
    pair: tuple[Small, ...] = ()
    items: list[Item] = Field(default_factory=list)
    nested: list[list[Small]] = Field(default_factory=list)
    by_name: dict[str, Item] = Field(default_factory=dict)
    parcel: Parcel | None = None


@asynccontextmanager
async def open_orders(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("orders", __name__)

    @routes.post("/orders")
    @anyone
    @unlimited("a test's")
    @validate_request(Order)
    async def order(data: Order) -> dict[str, Any]:
        return {"numbers": len(data.numbers or ())}

    yield routes


ORDERS = Feature("orders", open=open_orders)
WRONG: dict[str, Any] = {"size": 1}


@pytest.mark.parametrize(
    "of",
    [
        lambda count: {"numbers": [1] * count},
        lambda count: {"pair": [1] * count},
        lambda count: {"items": [WRONG] * count},
        lambda count: {"items": [{}] * count},
        lambda count: {"nested": [[1]] * count},
        lambda count: {"by_name": {str(number): WRONG for number in range(count)}},
        lambda count: {"parcel": {"items": [WRONG] * count}},
        lambda count: {"parcel": {"metadata": {str(number): WRONG for number in range(count)}}},
    ],
    ids=[
        "numbers",
        "a tuple",
        "models",
        "models without their fields",
        "lists",
        "a mapping",
        "models within another",
        "pydantic's name",
    ],
)
async def test_of_many_wrong_values_one_is_looked_at_and_told_as_of_one(make_settings: MakeSettings, of: Any) -> None:
    """1 MiB of empty objects, whose model has five fields, took 1.5 GB and held the event loop for five seconds."""
    async with booted(make_settings(**FREE), [ORDERS]) as urls, Client(urls.public) as client:
        one = await client.post("/orders", json=of(1))
        looked_at.clear()
        many = await client.post("/orders", json=of(COUNT))

    assert (one.status_code, many.status_code) == (400, 400)
    assert many.json()["detail"] == one.json()["detail"]
    assert len(looked_at) <= 1


class Tree(BaseModel, defer_build=True):
    kids: list["Tree"] = []
    sizes: dict[str, list[Small]] = {}
    default: dict[str, Any] = {"type": "list"}


def test_a_model_of_itself_that_is_built_late_is_checked_as_by_its_own_validator() -> None:
    tree = {"kids": [{"kids": [{"sizes": {"a": [0, 0]}}]}], "sizes": {"b": [0]}}
    checked, usual = failing_fast(Tree).validate_python(tree), Tree.model_validate(tree)
    looked_at.clear()

    with pytest.raises(ValidationError):
        failing_fast(Tree).validate_python({"kids": [{"sizes": {"a": [1] * COUNT}}] * COUNT})

    assert checked == usual
    assert checked.default == {"type": "list"}
    assert looked_at == [1]


async def test_many_values_that_are_right_are_taken(make_settings: MakeSettings) -> None:
    body = {"numbers": [0] * COUNT, "items": [{"size": 0}] * COUNT, "parcel": {"items": [{"size": 0}] * COUNT}}
    async with booted(make_settings(**FREE), [ORDERS]) as urls, Client(urls.public) as client:
        answer = await client.post("/orders", content=json.dumps(body), headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()) == (200, {"numbers": COUNT})
