"""A feature whose requests are queries; `python -m tests.database.queries` is `service serve` with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quart import Blueprint

import service.__main__ as line
from service.resources import Resources
from tests.database.units import sleep


@asynccontextmanager
async def open_queries(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("queries", __name__)

    @routes.get("/query/<float:seconds>")
    async def query(seconds: float) -> str:
        await resources.database.run(sleep, seconds)
        return "done"

    yield routes


if __name__ == "__main__":
    settings, origins = line.load_or_exit()
    line.prepare_logs(settings)
    line.process(settings, origins, features=[open_queries])
