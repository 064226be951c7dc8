"""The same app on the stack as it comes (`bare`) and on ours (`safe`), in a process of its own.

`python -m tests.platform.server.child bare|safe '{"setting": value}'` prints its port, serves, and ends with SIGTERM.
Run like this where the end of a process, its memory or its descriptors matter.
"""

import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import hypercorn.trio
import trio
from hypercorn.config import Config
from quart import Blueprint, abort, request, websocket
from quart_trio import QuartTrio
from wsproto.frame_protocol import CloseReason

from service.platform.http.limits import unlimited
from service.platform.identity import anyone

if TYPE_CHECKING:
    from service.platform.settings import PlatformSettings

CHUNK = bytes(65_536)


def make_settings(**changes: Any) -> "PlatformSettings":
    """Return settings that no environment of the machine reaches into."""
    from service.platform.settings import (
        PlatformSettings,  # not at the top: the stack as it comes starts in half the time without it
    )

    return PlatformSettings.model_construct(**PlatformSettings.model_construct().model_dump() | changes)


def add_routes[App: QuartTrio | Blueprint](app: App) -> App:
    """Add what the tests ask for."""

    @app.get("/")
    @anyone
    @unlimited("a test's")
    async def hello() -> str:
        return "hello"

    @app.get("/url")
    @anyone
    @unlimited("a test's")
    async def url() -> str:
        return request.url

    @app.get("/livez")
    @anyone
    @unlimited("a test's")
    async def live() -> str:
        return "{}"

    @app.get("/slow/<float:seconds>")
    @anyone
    @unlimited("a test's")
    async def slow(seconds: float) -> str:
        await trio.sleep(seconds)
        return "done"

    @app.get("/tasks")
    @anyone
    @unlimited("a test's")
    async def tasks() -> str:
        return str(trio.lowlevel.current_statistics().tasks_living)

    @app.post("/read")
    @anyone
    @unlimited("a test's")
    async def read() -> str:
        return str(len(await request.get_data(cache=True, as_text=False, parse_form_data=False)))

    @app.post("/ignore")
    @anyone
    @unlimited("a test's")
    async def ignore() -> str:
        await trio.sleep(1)
        return "ignored"

    @app.get("/big")
    @anyone
    @unlimited("a test's")
    async def big() -> bytes:
        return bytes(16 << 20)

    @app.get("/stream")
    @anyone
    @unlimited("a test's")
    async def stream() -> AsyncIterator[bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield CHUNK

        return chunks()

    @app.get("/error")
    @anyone
    @unlimited("a test's")
    async def error() -> str:
        raise RuntimeError("meant")

    @app.get("/group")
    @anyone
    @unlimited("a test's")
    async def group() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_not_found)
            nursery.start_soon(_fail)
        return "never"

    @app.websocket("/echo")
    @anyone
    @unlimited("a test's")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    @app.websocket("/deaf")
    @anyone
    @unlimited("a test's")
    async def deaf() -> None:
        await websocket.accept()
        await trio.sleep_forever()

    @app.websocket("/pump")
    @anyone
    @unlimited("a test's")
    async def pump() -> None:
        while True:
            await websocket.send(CHUNK)

    @app.websocket("/talk")
    @anyone
    @unlimited("a test's")
    async def talk() -> None:
        while True:
            await websocket.send("x")

    @app.websocket("/nursery")
    @anyone
    @unlimited("a test's")
    async def nursery() -> None:
        await websocket.accept()
        async with trio.open_nursery() as tasks:
            tasks.start_soon(websocket.receive)
            tasks.start_soon(trio.sleep_forever)

    @app.websocket("/fail")
    @anyone
    @unlimited("a test's")
    async def fail() -> None:
        await websocket.accept()
        raise RuntimeError("meant")

    @app.websocket("/return")
    @anyone
    @unlimited("a test's")
    async def return_() -> None:
        await websocket.accept()

    @app.websocket("/subprotocol")
    @anyone
    @unlimited("a test's")
    async def subprotocol() -> None:
        await websocket.accept(subprotocol="not.offered")

    @app.websocket("/abort")
    @anyone
    @unlimited("a test's")
    async def refuse() -> None:
        abort(403)

    return app


async def _not_found() -> None:
    abort(404)


async def _fail() -> None:
    raise RuntimeError("meant, beside a 404")


def bare_config(port: int = 0, **changes: Any) -> Config:
    """Return Hypercorn's defaults on a local port."""
    config = Config.from_mapping(bind=f"127.0.0.1:{port}", **changes)
    config.errorlog = None if changes.get("quiet") else config.errorlog
    return config


async def _serve_bare(stop: trio.Event, options: dict[str, Any]) -> None:
    app = add_routes(QuartTrio("bare"))
    app.config["MAX_CONTENT_LENGTH"] = 1 << 20
    async with trio.open_nursery() as nursery:
        config = bare_config(**options)
        addresses = await nursery.start(_start_bare, app, config, stop)
        print(addresses[0].rpartition(":")[2], flush=True)


async def _start_bare(app: Any, config: Config, stop: trio.Event, *, task_status: trio.TaskStatus[Any]) -> None:
    await hypercorn.trio.serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)


async def _serve_safe(stop: trio.Event, options: dict[str, Any]) -> None:
    from service.platform.lifecycle import Lifecycle
    from service.platform.server import (
        Application,
        RateLimits,
        ServerStatistics,
        Websockets,
        guard,
        listener_url,
        open_listener,
        serve,
    )

    settings = make_settings(**options)
    statistics, lifecycle, websockets = ServerStatistics(), Lifecycle(), Websockets()
    app = guard(
        add_routes(Application("safe", settings=settings)),
        settings=settings,
        lifecycle=lifecycle,
        statistics=statistics,
        limits=RateLimits(0),
    )
    listener = open_listener("127.0.0.1:0")
    listener.listen()  # sooner than `serve` does it, for whoever reads the port
    print(listener_url(listener).rpartition(":")[2], flush=True)

    async def leave() -> None:
        await stop.wait()
        lifecycle.start_leaving()
        await websockets.close_all(CloseReason.SERVICE_RESTART)

    await serve(
        app,
        listener,
        settings=settings,
        statistics=statistics,
        lifecycle=lifecycle,
        websockets=websockets,
        shutdown=leave,
        probes={
            "/livez": lambda: (200, b"{}"),
            "/in-flight": lambda: (200, str(statistics.requests_in_flight).encode()),
        },
    )
    print(statistics, file=sys.stderr)


async def _main(kind: str, options: dict[str, Any]) -> None:
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon({"bare": _serve_bare, "safe": _serve_safe}[kind], stop, options)
            async for _ in signals:
                stop.set()
                break


if __name__ == "__main__":
    trio.run(_main, sys.argv[1], json.loads(sys.argv[2]))
