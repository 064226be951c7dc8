"""Yours: the smallest feature. Copy it to add your own. It has no table, and asks the database only for the time.

What it declares, it is held to: a question that is not a Question is answered 400, and /openapi.json shows both.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, TypedDict

from pydantic import Field
from pydantic.dataclasses import dataclass
from quart import Blueprint
from quart_schema import validate_querystring
from sqlalchemy import Connection, text

from service.platform.feature import Resources
from service.platform.http import unlimited
from service.platform.identity import anyone


@dataclass(frozen=True, kw_only=True)
class Question:
    name: Annotated[str, Field(min_length=1, max_length=64, description="1 to 64 characters")] = "world"


class Greeting(TypedDict):
    message: str
    at: str


@asynccontextmanager
async def open_hello(resources: Resources) -> AsyncIterator[Blueprint]:
    yield create_routes(resources)


def create_routes(resources: Resources) -> Blueprint:
    routes = Blueprint("hello", __name__)

    @routes.get("/")
    @anyone
    @unlimited("a constant")
    async def index() -> dict[str, str]:
        return {"message": "hello", "try": "/api/hello?name=you"}

    @routes.get("/api/hello")
    @anyone
    @unlimited("one read of no table")
    @validate_querystring(Question)
    async def hello(query_args: Question) -> Greeting:
        """Greet somebody, and tell the database's time."""
        now = await resources.database.read(select_now)
        return {"message": f"hello, {query_args.name}", "at": now.isoformat()}

    return routes


def select_now(connection: Connection) -> datetime:
    now: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return now
