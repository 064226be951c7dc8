"""One process, three listeners of our server, the same routes: QuartTrio alone, the server package alone, everything.

In one process, so that the three differ in nothing but what is around the request. Logs go to standard error.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio
from quart import Blueprint
from quart_trio import QuartTrio

from bench.apps.ours import select_item
from service.platform.database import Database, open_database
from service.platform.http.app import create_app, surround
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.inside.readings import show_database, show_server
from service.platform.lifecycle import Lifecycle
from service.platform.server import Application, RateLimits, ServerStatistics, guard, listener_url, open_listener, serve
from service.platform.settings import PlatformSettings
from service.platform.telemetry.logs import configure_logs
from service.platform.telemetry.metrics import Metrics


def create_routes(database: Database | None) -> Blueprint:
    routes = Blueprint("price", __name__)

    @routes.get("/hello")
    @anyone
    @unlimited("measured")
    async def hello() -> dict[str, str]:
        return {"message": "hello"}

    @routes.get("/items/<int:number>")
    @anyone
    @unlimited("measured")
    async def get_item(number: int) -> dict[str, object]:
        assert database is not None
        return await database.read(select_item, number=number)

    return routes


def server_alone(settings: PlatformSettings, database: Database | None) -> Any:
    """Return what the server package brings by itself: its base of an application behind its gate."""
    app = Application(__name__, settings=settings)
    app.register_blueprint(create_routes(database))
    return guard(app, settings=settings, lifecycle=Lifecycle(), statistics=ServerStatistics(), limits=RateLimits(0))


def whole(settings: PlatformSettings, database: Database | None) -> Any:
    metrics, statistics, lifecycle = Metrics(), ServerStatistics(), Lifecycle()
    if database is not None:
        show_database(metrics, database)
    return surround(
        create_app([create_routes(database)], settings),
        settings,
        lifecycle=lifecycle,
        statistics=statistics,
        limits=RateLimits(0),
        observe=show_server(metrics, statistics),
    )


@asynccontextmanager
async def listening(app: Any, settings: PlatformSettings) -> AsyncIterator[str]:
    """Yield the port on which `app` is served."""
    listener = open_listener("127.0.0.1:0")
    start = partial(
        serve, app, listener, settings=settings, statistics=ServerStatistics(), lifecycle=Lifecycle(),
        shutdown=trio.sleep_forever,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(start)
        yield listener_url(listener).rpartition(":")[2]


async def main(database_url: str) -> None:
    settings = PlatformSettings(
        database_url=database_url or None, max_requests=10_000, rate_per_address=0, database_queue_wait=30
    )

    async with AsyncExitStack() as stack:

        async def database() -> Database | None:
            return await stack.enter_async_context(open_database(settings)) if database_url else None

        bare = QuartTrio(__name__)
        bare.register_blueprint(create_routes(await database()))
        apps = bare, server_alone(settings, await database()), whole(settings, await database())
        ports = [await stack.enter_async_context(listening(app, settings)) for app in apps]
        print(*ports, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    configure_logs("info", "json")
    trio.run(partial(main, sys.argv[1] if len(sys.argv) > 1 else ""))
