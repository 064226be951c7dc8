"""The health endpoints, on both listeners of a booted service."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from service.platform.database import Condition, SchemaState
from service.platform.inside.health import Health
from service.platform.lifecycle import Lifecycle
from service.platform.settings import PlatformSettings
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings


class Known:
    """A database of which only the condition is known."""

    def __init__(self, condition: Condition, failing_tasks: Mapping[str, str] = {}) -> None:
        self.condition = condition
        self.failing_tasks = failing_tasks

    async def look(self) -> None:
        """Find nothing new."""


@dataclass(frozen=True)
class Case:
    phase: str
    reachable: bool
    schema: SchemaState | None
    required: bool
    ready: str


CASES = [
    Case("starting", True, SchemaState.AT, False, "starting"),
    Case("ready", True, SchemaState.AT, False, ""),
    Case("ready", True, SchemaState.AHEAD_COMPATIBLE, False, ""),
    Case("ready", True, SchemaState.AHEAD_INCOMPATIBLE, False, "schema"),
    Case("ready", True, SchemaState.BEHIND, False, "schema"),
    Case("ready", False, SchemaState.AT, False, ""),  # an outage alone: all replicas leaving at once helps nobody
    Case("ready", False, SchemaState.AT, True, "database"),
    Case("ready", True, SchemaState.AT, True, ""),
    Case("ready", False, None, False, "schema"),
    Case("draining", True, SchemaState.AT, False, "draining"),
    Case("leaving", True, SchemaState.AT, False, "leaving"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_the_probes_answer(case: Case) -> None:
    lifecycle = Lifecycle()
    steps = {"ready": lifecycle.mark_ready, "draining": lifecycle.start_draining, "leaving": lifecycle.start_leaving}
    if case.phase in steps:
        steps[case.phase]()
    settings = PlatformSettings(readiness_requires_database=case.required)
    known: Any = Known(Condition(reachable=case.reachable, schema=case.schema))
    health = Health(settings, lifecycle, known)

    status, body = health.ready()
    assert (status, json.loads(body).get("reason", "")) == (503 if case.ready else 200, case.ready)
    assert health.live()[0] == 200
    assert health.started()[0] == (503 if case.phase == "starting" else 200)


@pytest.mark.parametrize(
    ("failing", "background"),
    [({}, (True, "ok")), ({"sweep": "no answer", "bill": "refused"}, (False, "sweep: no answer; bill: refused"))],
)
async def test_what_is_wrong_is_told_to_operators_by_check(
    failing: dict[str, str], background: tuple[bool, str]
) -> None:
    known: Any = Known(Condition(error="no connection within 2 s"), failing)
    checks = await Health(PlatformSettings(), Lifecycle(), known).check()

    assert {name: (check["ok"], check["state"]) for name, check in checks.items() if name != "event_loop"} == {
        "process": (True, "starting"),
        "database": (False, "no connection within 2 s"),
        "background": background,
        "schema": (False, "unknown"),
    }


async def test_healthz_says_states_in_public_and_all_to_operators(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, []) as urls, httpx2.AsyncClient() as client:
        public = await client.get(urls.public + "/healthz")
        full = await client.get(urls.management + "/healthz")

    assert (public.status_code, full.status_code) == (200, 200)
    assert public.json() == {
        "status": "ok",
        "checks": dict.fromkeys(("process", "event_loop", "database", "background", "schema"), "ok"),
    }
    database = full.json()["checks"]["database"]
    assert (database["state"], set(database)) == ("reachable", {"ok", "state", "age", "duration"})
    assert database["age"] < 5
    assert public.headers["cache-control"] == full.headers["cache-control"] == "no-store"


HEALTH = ("/livez", "/readyz", "/healthz")
ASKED = [(method, query) for method in ("GET", "HEAD") for query in ("", "?", "?from=monitor")]


async def test_monitors_are_answered_by_address_where_only_some_hosts_are_served(make_settings: MakeSettings) -> None:
    free = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
    settings = make_settings(**free, allowed_hosts="example.org")
    async with booted(settings, []) as urls, httpx2.AsyncClient(headers={"Host": "10.1.2.3:8000"}) as client:
        refused = await client.get(urls.public + "/openapi.json")
        targets = [urls.public + path for path in HEALTH]
        targets += [urls.management + path for path in (*HEALTH, "/startupz")]
        answers = {
            (target, method, query): await client.request(method, target + query)
            for target in targets
            for method, query in ASKED
        }

    assert refused.status_code == 421  # so hosts are looked at
    assert {asked: answer.status_code for asked, answer in answers.items() if answer.status_code != 200} == {}
    for target in targets:
        kinds = [answers[target, method, query] for method, query in ASKED]
        assert [bool(answer.content) for answer in kinds] == [True] * 3 + [False] * 3
        assert len({tuple(sorted(answer.headers.keys())) for answer in kinds}) == 1  # HEAD says what GET says
        assert {answer.headers["x-content-type-options"] for answer in kinds} == {"nosniff"}
