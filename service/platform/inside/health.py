"""Health: plain answers from memory, mounted by both listeners. Only `/healthz` may ask the database.

A probe answers "should this be restarted, or sent traffic", which a dependency must not decide; `/healthz` is for
people and monitors.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NotRequired, TypedDict

import structlog
from quart import Blueprint, Response

from service.platform.database import Database
from service.platform.http.limits import unlimited
from service.platform.http.openapi import replies, unguarded
from service.platform.identity import anyone
from service.platform.inside.watchdog import Watchdog
from service.platform.lifecycle import Lifecycle, Phase
from service.platform.settings import PlatformSettings

log = structlog.get_logger(__name__)

type Answer = tuple[int, bytes]
type Probe = Callable[[], Answer]
type Word = Literal["ok", "fail"]


class ProbeAnswer(TypedDict):
    status: Word
    reason: NotRequired[str]


class Checks(TypedDict):
    """Each check with its state; the operator's listener says more of it."""

    status: Word
    checks: dict[str, Word]


class Health:
    """What the endpoints say. Reads memory; `check` alone looks at the database, one look at a time."""

    def __init__(
        self, settings: PlatformSettings, lifecycle: Lifecycle, database: Database, watchdog: Watchdog | None = None
    ) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._database = database
        self._watchdog = watchdog or Watchdog(0)
        self._more: dict[str, Callable[[], dict[str, Any] | None]] = {}

    def add(self, name: str, condition: Callable[[], dict[str, Any] | None]) -> None:
        """Add a check of what opens later; None stands for one that does not apply."""
        self._more[name] = condition

    def live(self) -> Answer:
        """The event loop answers; nothing else counts, not even a drain."""
        return _answer("")

    def started(self) -> Answer:
        return _answer("" if self._lifecycle.phase is not Phase.STARTING else "starting")

    def ready(self) -> Answer:
        return _answer(self._why_not_ready())

    async def check(self) -> dict[str, dict[str, Any]]:
        """Look now, and return each check with its state; ages and durations are seconds."""
        await self._database.look()
        seen = self._database.condition
        failing = [f"{task}: {error}" for task, error in self._database.failing_tasks.items()]
        more = {name: condition() for name, condition in self._more.items()}
        looked = {"age": round(seen.age, 3), "duration": round(seen.duration, 3)}
        return {
            "process": {"ok": True, "state": str(self._lifecycle.phase), "age": 0, "duration": 0},
            "event_loop": self._watchdog.condition(),
            "database": {"ok": not seen.error, "state": seen.error or "reachable", **looked},
            "background": {"ok": not failing, "state": "; ".join(failing) or "ok", "age": 0, "duration": 0},
            "schema": {
                "ok": seen.served,
                "state": str(seen.schema or "unknown"),
                "revision": seen.revision,
                "head": seen.head,
                **looked,
            },
            **{name: check for name, check in more.items() if check is not None},
        }

    def _why_not_ready(self) -> str:
        if not self._lifecycle.ready:
            return str(self._lifecycle.phase)
        if not self._database.condition.served:
            return "schema"
        if self._settings.readiness_requires_database and not self._database.condition.reachable:
            return "database"
        return ""


def public_probes(health: Health) -> Mapping[str, Probe]:
    return {"/livez": health.live, "/readyz": _told("/readyz", health.ready)}


def management_probes(health: Health) -> Mapping[str, Probe]:
    return {**public_probes(health), "/startupz": _told("/startupz", health.started)}


def _told(path: str, probe: Probe) -> Probe:
    """Return the probe with a line in the log each time that it answers otherwise than the last time."""
    last: Answer | None = None

    def asked() -> Answer:
        nonlocal last
        answer = probe()
        if answer != last:
            last = answer
            log.info("probe changed", probe=path, status=answer[0], **_reason(answer[1]))
        return answer

    return asked


def _reason(body: bytes) -> dict[str, str]:
    return {key: value for key, value in json.loads(body).items() if key == "reason"}


def create_routes(health: Health, probes: Mapping[str, Probe], *, in_full: bool) -> Blueprint:
    """Return `/healthz`; `in_full` is for the operator's listener, elsewhere it says states only."""
    routes = Blueprint("health", __name__)
    for path, probe in probes.items():
        _add_probe(routes, path, probe)

    @routes.get("/healthz")
    @anyone
    @unlimited("one look at a time, whoever asks")
    @replies(Checks, 200, 503)
    async def healthz() -> Response:
        checks = await health.check()
        ok = all(check["ok"] for check in checks.values())
        shown: Mapping[str, Any] = checks if in_full else {name: _word(check["ok"]) for name, check in checks.items()}
        body = json.dumps({"status": _word(ok), "checks": shown})
        return Response(body, 200 if ok else 503, {"Cache-Control": "no-store"}, content_type="application/json")

    return routes


def _add_probe(routes: Blueprint, path: str, probe: Probe) -> None:
    """Make a probe's path known to the framework too: for its document, and for methods that a probe does not have."""

    @anyone
    @unlimited("a probe: answered ahead of the framework, from memory")
    @unguarded
    @replies(ProbeAnswer, 200, 503)
    async def answer() -> Response:
        status, body = probe()
        return Response(body, status, content_type="application/json")

    routes.add_url_rule(path, path.strip("/"), answer)


def _answer(why_not: str) -> Answer:
    if why_not:
        return 503, json.dumps({"status": "fail", "reason": why_not}).encode()
    return 200, b'{"status": "ok"}'


def _word(ok: object) -> Word:
    return "ok" if ok else "fail"
