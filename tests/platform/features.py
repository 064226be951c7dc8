"""Features that only tests have: slow, streaming, crashing."""

import atexit
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import Event, Thread

import structlog
import trio
from pydantic.dataclasses import dataclass as pydantic_dataclass
from quart import Blueprint, Response, request, websocket
from quart_schema import DataSource, validate_request
from sqlalchemy import Connection, text
from trio.testing import wait_all_tasks_blocked

from service.platform.errors import Invalid, Unavailable
from service.platform.feature import Feature, Resources
from service.platform.http import idempotent, run_once
from service.platform.http.app import no_deadline
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.jobs import enqueue, job
from service.platform.settings import SettingsError
from tests.platform.server.child import add_routes


class Planted(Exception):
    """An error that a test has planted."""


@asynccontextmanager
async def open_plain(resources: Resources) -> AsyncIterator[Blueprint]:
    """Yield one route, which does a unit of work."""
    routes = Blueprint("plain", __name__)

    @routes.get("/plain")
    @anyone
    @unlimited("a test's")
    async def plain() -> dict[str, int]:
        return {"one": await resources.database.read(select_one)}

    yield routes


def select_one(connection: Connection) -> int:
    one: int = connection.execute(text("SELECT 1")).scalar_one()
    return one


@asynccontextmanager
async def open_slow(resources: Resources) -> AsyncIterator[Blueprint]:
    """Yield routes that take their time and a websocket that waits for the end."""
    routes = Blueprint("slow", __name__)

    @routes.get("/slow")
    @anyone
    @unlimited("a test's")
    async def slow() -> str:
        await trio.sleep(float(request.args["seconds"]))
        return "done"

    @routes.get("/stream")
    @anyone
    @unlimited("a test's")
    @no_deadline
    async def stream() -> AsyncIterator[bytes]:
        await trio.sleep(float(request.args["seconds"]))

        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"part\n"

        return parts()

    @routes.get("/refuse")
    @anyone
    @unlimited("a test's")
    async def refuse() -> str:
        raise Invalid("seconds: must be a number")

    @routes.get("/crash")
    @anyone
    @unlimited("a test's")
    async def crash() -> str:
        raise Planted("postgresql://me:hunter2@h/db")

    @routes.get("/crash-group")
    @anyone
    @unlimited("a test's")
    async def crash_group() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refuse)
            nursery.start_soon(_crash)
        return ""

    @routes.websocket("/wait")
    @anyone
    @unlimited("a test's")
    async def wait() -> None:
        await websocket.accept()
        await websocket.send("waiting")
        await trio.sleep_forever()

    yield routes


@asynccontextmanager
async def open_crashing(resources: Resources) -> AsyncIterator[Blueprint]:
    """Yield a route that makes a background task of this feature crash."""
    routes = Blueprint("crashing", __name__)
    fuse = trio.Event()
    leaves: list[str] = []

    async def background() -> None:
        await fuse.wait()
        if leaves:
            sys.exit(0)
        raise Planted("in the background")

    @routes.post("/light")
    @anyone
    @unlimited("a test's")
    async def light() -> str:
        leaves.extend(request.args.getlist("leaves"))
        fuse.set()
        return "lit"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(background)
        yield routes
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_stubborn(resources: Resources) -> AsyncIterator[Blueprint]:
    """Yield nothing of use, and never close."""
    yield Blueprint("stubborn", __name__)
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def _refuse() -> None:
    raise Invalid("a group of two")


async def _crash() -> None:
    raise Planted("a group of two")


@asynccontextmanager
async def open_holding(resources: Resources) -> AsyncIterator[Blueprint]:
    """Yield a route that holds the event loop, one that hangs, and one whose unit takes long."""
    routes = Blueprint("holding", __name__)

    @routes.get("/hold")
    @anyone
    @unlimited("a test's")
    async def hold() -> str:
        time.sleep(float(request.args["seconds"]))  # noqa: ASYNC251  what this is for
        return "held"

    @routes.get("/compute")
    @anyone
    @unlimited("a test's")
    async def compute() -> str:
        sum(range(int(request.args["count"])))  # one call of C, which lets no other thread run
        return "computed"

    @routes.get("/hang")
    @anyone
    @unlimited("a test's")
    async def hang() -> str:
        await trio.Event().wait()
        return ""

    @routes.get("/slow-unit")
    @anyone
    @unlimited("a test's")
    async def slow_unit() -> str:
        await resources.database.read(select_slowly)
        return ""

    yield routes


def select_slowly(connection: Connection) -> None:
    connection.execute(text("SELECT pg_sleep(20)"))


@asynccontextmanager
async def open_streaming(resources: Resources) -> AsyncIterator[Blueprint]:
    """Yield the routes on which the server's own tests try it, endless ones among them."""
    yield add_routes(Blueprint("streaming", __name__))


@asynccontextmanager
async def open_ticking(_: Resources) -> AsyncIterator[Blueprint]:
    """Yield an answer whose second part follows a moment after the first."""
    routes = Blueprint("ticking", __name__)

    @routes.get("/ticking")
    @anyone
    @unlimited("a test's")
    async def ticking() -> AsyncIterator[bytes]:
        async def parts() -> AsyncIterator[bytes]:
            yield b"tick"
            await trio.sleep(0.1)
            yield b"tock"

        return parts()

    yield routes


@asynccontextmanager
async def open_traced(resources: Resources) -> AsyncIterator[Blueprint]:
    """Yield a route and a websocket that do units of work, with a span on the thread; two fail, one late."""
    routes = Blueprint("traced", __name__)

    @routes.get("/traced/<name>")
    @anyone
    @unlimited("a test's")
    async def traced(name: str) -> str:
        await resources.database.read(select_traced)
        return name

    @routes.get("/broken")
    @anyone
    @unlimited("a test's")
    async def broken() -> str:
        await resources.database.run(select_nothing_there)
        return ""

    @routes.get("/cut")
    @anyone
    @unlimited("a test's")
    async def cut() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            raise Unavailable("gone for now")

        return Response(parts())

    @routes.websocket("/traced")
    @anyone
    @unlimited("a test's")
    async def talk() -> None:
        while True:
            said = await websocket.receive()
            await resources.database.read(select_traced)
            await websocket.send(said)

    yield routes


@job(retries=0)
def be_traced(connection: Connection) -> None:
    structlog.get_logger().info("done as a job")


@asynccontextmanager
async def open_enqueuing(resources: Resources) -> AsyncIterator[Blueprint]:
    """Yield a route that enqueues a job."""
    routes = Blueprint("enqueuing", __name__)

    @routes.get("/enqueue")
    @anyone
    @unlimited("a test's")
    async def enqueue_one() -> str:
        return str(await resources.database.run(enqueue, be_traced))

    yield routes


def select_traced(connection: Connection) -> None:
    from opentelemetry import trace  # here, as no other feature's process needs it

    with trace.get_tracer(__name__).start_as_current_span("on the thread"):
        connection.execute(text("SELECT 1"))


def select_nothing_there(connection: Connection) -> None:
    connection.execute(text("SELECT * FROM nothing_there"))


@asynccontextmanager
async def open_dying(resources: Resources) -> AsyncIterator[Blueprint]:
    """Yield an order whose process is killed when it is committed, and before it is answered: the first time."""
    routes = Blueprint("dying", __name__)

    @routes.post("/orders")
    @anyone
    @unlimited("a test's")
    @idempotent
    async def order() -> Response:
        answer = await run_once(resources.database, lambda number: ({"number": number}, 201), place_order)
        if "Idempotency-Replayed" not in answer.headers:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    yield routes


def place_order(connection: Connection) -> int:
    number: int = connection.execute(text("INSERT INTO placed DEFAULT VALUES RETURNING number")).scalar_one()
    return number


@asynccontextmanager
async def open_late(resources: Resources) -> AsyncIterator[Blueprint]:
    """Wait for what does not come, as for a peer that is away."""
    print('{"event": "opening"}', flush=True)
    await trio.Event().wait()
    yield Blueprint("late", __name__)


@asynccontextmanager
async def open_torn(resources: Resources) -> AsyncIterator[Blueprint]:
    """Find a setting that cannot be used, and crash over what is to be closed then."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash_at_its_end)
        await wait_all_tasks_blocked()
        refuse_url()
        yield Blueprint("torn", __name__)


def refuse_url() -> None:
    raise SettingsError(["SERVICE_TORN_URL: cannot be used"])


async def crash_at_its_end() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise Planted("at its end")


LATE = Feature("late", open=open_late)
TORN = Feature("torn", open=open_torn)
PLAIN = Feature("plain", open=open_plain)
SLOW = Feature("slow", open=open_slow)
CRASHING = Feature("crashing", open=open_crashing)
STUBBORN = Feature("stubborn", open=open_stubborn)
HOLDING = Feature("holding", open=open_holding)
STREAMING = Feature("streaming", open=open_streaming)
TICKING = Feature("ticking", open=open_ticking)
TRACED = Feature("traced", open=open_traced)
ENQUEUING = Feature("enqueuing", open=open_enqueuing, jobs=(be_traced,))
DYING = Feature("dying", open=open_dying)


@asynccontextmanager
async def open_lingering(_: Resources) -> AsyncIterator[Blueprint]:
    """Leave behind what the interpreter would wait for: a thread, and what is to be done at exit."""
    atexit.register(print, "done at exit", flush=True)
    atexit.register(os.kill, os.getpid(), signal.SIGTERM)  # done before it: a repeat that comes late
    Thread(target=Event().wait, name="never ends").start()
    yield Blueprint("lingering", __name__)


LINGERING = Feature("lingering", open=open_lingering)


@dataclass(frozen=True)
class Wait:
    seconds: float


@pydantic_dataclass
class One:
    inner: "list[One | Other]"


@pydantic_dataclass
class Other:
    inner: "list[One | Other]"


@asynccontextmanager
async def open_undeclared(_: Resources) -> AsyncIterator[Blueprint]:
    """Yield routes of which two do not say who may use them, three not how they are limited, one takes a form, and one
    what holds itself.
    """
    routes = Blueprint("undeclared", __name__)

    @routes.get("/declared")
    @anyone
    @unlimited("a test's")
    async def declared() -> str:
        return ""

    @routes.post("/orders")
    async def order() -> str:
        return ""

    @routes.get("/orders")
    @anyone
    async def orders() -> str:
        return ""

    @routes.websocket("/feed")
    async def feed() -> None:
        await websocket.accept()

    @routes.post("/form")
    @anyone
    @unlimited("a test's")
    @validate_request(Wait, source=DataSource.FORM)
    async def form(data: Wait) -> str:
        return str(data)

    @routes.post("/endless")
    @anyone
    @unlimited("a test's")
    @validate_request(One)
    async def endless(data: One) -> str:
        return str(data)

    yield routes


UNDECLARED = Feature("undeclared", open=open_undeclared)
