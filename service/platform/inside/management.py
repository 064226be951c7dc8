"""The operator's listener: facts for anybody who reaches it, what could tell secrets or do harm for loopback only.

`kubectl port-forward` and `exec` are loopback. A Host that is a name is refused there too: a page in the operator's
browser could have pointed its own name at 127.0.0.1.
"""

import datetime
import functools
import importlib.metadata
import platform
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from quart import Blueprint, Response, request

from service.platform.database import Database
from service.platform.errors import Forbidden, Invalid, cut
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.inside.tasks import task_tree
from service.platform.inside.watchdog import Watchdog
from service.platform.lifecycle import Lifecycle
from service.platform.name import NAME, version
from service.platform.server import Headers, client_of, host_of, parse_address, refusal
from service.platform.settings import PlatformSettings
from service.platform.settings import effective as in_force
from service.platform.telemetry.logs import LEVELS, LogLevel, log_level
from service.platform.telemetry.metrics import CONTENT_TYPE, Metrics
from service.platform.telemetry.tracing import Tracing

METRICS = "/metrics"
# How long a level that differs from the usual one lasts unless the operator says how long, and at most.
DEFAULT_SECONDS, MOST_SECONDS = 300, 86_400

# The parts whose versions an operator asks for first.
_PARTS = ("quart", "quart-trio", "hypercorn", "trio", "sqlalchemy", "psycopg")


def loopback_only[**P, T](view: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Declare that an operator on this machine may: 403 for a peer that is not loopback, and for a Host that is neither

    `localhost` nor an IP literal. No token is asked for on this listener.
    """

    @anyone
    @unlimited("for operators on this machine")
    @functools.wraps(view)
    async def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if not may_inspect(client_of(request.scope), request.headers.get("Host", "")):
            raise Forbidden("only for a loopback peer that asks for localhost: use kubectl port-forward or exec")
        return await view(*args, **kwargs)

    return checked


def may_inspect(peer: str, host: str) -> bool:
    """Return whether a peer's address and the Host it asks for are those of somebody on this machine."""
    name, address = host_of(host) or "", parse_address(peer)
    literal = parse_address(name.removeprefix("[").removesuffix("]"))
    return address is not None and address.is_loopback and (name == "localhost" or literal is not None)


@dataclass(frozen=True, slots=True)
class Inside:
    """What lets an operator see into the process; main opens one."""

    metrics: Metrics
    level: LogLevel
    watchdog: Watchdog
    tracing: Tracing | None = None

    @property
    def version(self) -> str:
        return version()


def create_routes(
    settings: PlatformSettings, origins: Mapping[str, str], lifecycle: Lifecycle, database: Database, inside: Inside
) -> Blueprint:
    routes = Blueprint("management", __name__)
    started = datetime.datetime.now(datetime.UTC)
    # The public listener's rule; only that no page of another origin may do anything here, and hosts have their own.
    rule = settings.model_copy(update={"allowed_hosts": (), "allowed_origins": ()})

    @routes.before_app_request
    async def refuse() -> None:
        if error := refusal(request.method, Headers.of(request.scope["headers"]), rule):
            raise error

    @routes.get("/info")
    @anyone
    @unlimited("for operators, on a listener of their own")
    async def info() -> dict[str, Any]:
        seen = database.condition
        return {
            "version": inside.version,
            "revision": settings.revision,
            "versions": {NAME: version()} | {name: importlib.metadata.version(name) for name in _PARTS},
            "python": platform.python_version(),
            "started": started.isoformat(timespec="seconds"),
            "phase": str(lifecycle.phase),
            "schema": {"state": str(seen.schema or "unknown"), "revision": seen.revision, "head": seen.head},
        }

    @routes.get(METRICS)
    @anyone
    @unlimited("for operators, on a listener of their own")
    async def metrics() -> Response:
        return Response(inside.metrics.text(), content_type=CONTENT_TYPE)

    @routes.get("/settings")
    @loopback_only
    async def effective() -> dict[str, Any]:
        return {name: {"value": value, "origin": origin} for name, value, origin in in_force(settings, origins)}

    add_inspection(routes, database, inside)
    return routes


def add_inspection(routes: Blueprint, database: Database, inside: Inside) -> None:
    @routes.get("/tasks")
    @loopback_only
    async def tasks() -> Response | dict[str, Any]:
        """Text for people, JSON for who accepts it and not text."""
        tree, units = task_tree(), database.in_flight()
        if request.accept_mimetypes.best_match(["text/plain", "application/json"]) == "application/json":
            return {**tree.document(), "units": [asdict(unit) for unit in units]}
        lines = [f"{unit.unit} for {unit.seconds:.1f} s, waited for by {unit.task}" for unit in units]
        text = "\n".join([tree.text, *(["", "units of work on their threads", *lines] if lines else []), ""])
        return Response(text, content_type="text/plain; charset=utf-8")

    @routes.get("/loglevel")
    @loopback_only
    async def level() -> dict[str, Any]:
        return shown_level(inside.level)

    @routes.put("/loglevel")
    @loopback_only
    async def change_level() -> dict[str, Any]:
        asked = await request.get_json(force=True)
        inside.level.change(*parse_level(asked))
        return shown_level(inside.level)


def parse_level(asked: object) -> tuple[str, float]:
    """Return level and seconds of `{"level": "debug", "seconds": 60}`. Raises Invalid."""
    given = asked if isinstance(asked, dict) else {}
    level, seconds = given.get("level"), given.get("seconds", DEFAULT_SECONDS)
    if level not in LEVELS:
        raise Invalid(f"level: must be one of {', '.join(LEVELS)}, not {cut(repr(level))}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= MOST_SECONDS:
        raise Invalid(f"seconds: must be a number from 1 to {MOST_SECONDS}, not {cut(repr(seconds))}")
    return level, float(seconds)


def shown_level(level: LogLevel) -> dict[str, Any]:
    return {"level": log_level(), "usual": level.usual, "seconds_left": level.seconds_left}
