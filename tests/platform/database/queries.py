"""A feature whose requests are queries; `python -m tests.platform.database.queries` is `service serve` with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quart import Blueprint

from service.platform.feature import Feature, Resources
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.settings import PlatformSettings
from service.platform.verbs import Program, run_program
from tests.platform.database.units import sleep


@asynccontextmanager
async def open_queries(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("queries", __name__)

    @routes.get("/query/<float:seconds>")
    @anyone
    @unlimited("a test's")
    async def query(seconds: float) -> str:
        await resources.database.run(sleep, seconds)
        return "done"

    yield routes


if __name__ == "__main__":
    run_program(Program(PlatformSettings, [Feature("queries", open=open_queries)]), ["serve"])
