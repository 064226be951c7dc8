"""The smallest feature: what you copy to add your own. It has no table, so it asks the database only for the time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from quart import Blueprint, request
from sqlalchemy import Connection, text

from service.errors import Invalid
from service.resources import Resources

MAX_NAME = 64


@asynccontextmanager
async def open_hello(resources: Resources) -> AsyncIterator[Blueprint]:
    yield create_routes(resources)


def create_routes(resources: Resources) -> Blueprint:
    routes = Blueprint("hello", __name__)

    @routes.get("/")
    async def index() -> dict[str, str]:
        return {"message": "hello", "try": "/api/hello?name=you"}

    @routes.get("/api/hello")
    async def hello() -> dict[str, str]:
        name = request.args.get("name", "world")
        if not 1 <= len(name) <= MAX_NAME:
            raise Invalid(f"name: must have 1 to {MAX_NAME} characters; this one has {len(name)}")
        now = await resources.database.read(select_now)
        return {"message": f"hello, {name}", "at": now.isoformat()}

    return routes


def select_now(connection: Connection) -> datetime:
    now: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return now
