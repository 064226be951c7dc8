"""What `service load` finds: planted violations, and none where a service keeps its promises."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from service.commands.load import run_load
from service.commands.load_check import Checker
from service.commands.load_plan import Plan, Report
from service.commands.load_report import text
from tests.booting import booted
from tests.database_fixtures import MakeSettings
from tests.features import open_slow
from tests.processes import run_to_end


def good(checker: Checker) -> None:
    """Two members see two messages, one of them after it had to resume."""
    for member in (1, 2):
        checker.joined(member, "r", "e", 0, gap=False)
        checker.received(member, "r", "e", 1, "a")
    checker.acked("r", "e", 1, "a", dup=False)
    checker.acked("r", "e", 2, "b", dup=False)
    checker.joined(2, "r", "e", 1, gap=False)
    for member in (1, 2):
        checker.received(member, "r", "e", 2, "b")


@dataclass(frozen=True)
class Planted:
    name: str
    kind: str
    plant: Callable[[Checker], None]


PLANTED = [
    Planted("acked and not delivered", "lost", lambda c: c.acked("r", "e", 3, "c", dup=False)),
    Planted("delivered twice", "duplicated", lambda c: c.received(1, "r", "e", 2, "b")),
    Planted("stored twice", "duplicated", lambda c: c.received(1, "r", "e", 3, "b")),
    Planted("a hole", "out of order", lambda c: c.received(1, "r", "e", 4, "d")),
    Planted("another epoch, untold", "out of order", lambda c: c.received(1, "r", "f", 3, "c")),
    Planted("another message at a seq", "out of order", lambda c: c.acked("r", "e", 2, "x", dup=False)),
    Planted("resumed elsewhere", "out of order", lambda c: c.joined(1, "r", "e", 1, gap=False)),
]


@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.name)
def test_a_planted_violation_is_found(case: Planted) -> None:
    checker = Checker()
    good(checker)
    assert not any(checker.violations(unanswered=0).values())
    case.plant(checker)

    assert checker.violations(unanswered=0)[case.kind]


def test_a_gap_that_is_told_is_allowed_and_counted() -> None:
    checker = Checker()
    good(checker)
    checker.joined(1, "r", "f", 7, gap=True)

    assert not any(checker.violations(unanswered=0).values())
    assert checker.told_gaps == 1


def test_a_run_in_which_nothing_worked_kept_nothing() -> None:
    plan = Plan(url="", members=1, writers=1, rooms=1, rate=1, http=1, path="/", duration=1)

    assert not Report(plan).kept
    assert not Report(plan, acked=1).kept
    assert Report(plan, acked=1, http_times=[0.1]).kept


async def test_a_service_under_load_keeps_its_promises(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    shown: list[int] = []
    async with booted(settings) as urls:
        plan = Plan(url=urls.public, members=12, writers=4, rooms=3, rate=40, http=20, path="/api/hello", duration=1.5)
        with trio.fail_after(30):
            report = await run_load(plan, lambda report, _seconds: shown.append(report.acked))

    assert report.kept, report
    assert report.sent == report.acked == 60
    assert report.received == 60 * 4
    assert report.statuses == {"200": 30}
    assert shown[-1] == 60
    assert len(set(shown)) > 2
    assert "every guarantee was kept" in text(report)
    assert json.loads(report.json())["seconds"]["delivery"]["p50"] > 0


async def test_gets_come_at_the_asked_rate_however_slow_the_answers_are(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [open_slow]) as urls:
        plan = Plan(
            url=urls.public, members=0, writers=0, rooms=1, rate=1, http=60, path="/slow?seconds=0.8", duration=1
        )  # fmt: skip
        with trio.fail_after(30):
            report = await run_load(plan, lambda *_: None)

    assert report.statuses == {"200": 60}  # 20 connections in turn would have come to 40
    assert min(report.http_times) >= 0.8


async def test_members_are_counted_while_they_join(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", rate_per_address=0)
    shown: list[tuple[int, float]] = []
    async with booted(settings) as urls:
        plan = Plan(url=urls.public, members=120, writers=1, rooms=3, rate=2, http=0, path="/", duration=0.5)
        with trio.fail_after(60):
            report = await run_load(plan, lambda report, seconds: shown.append((report.joined, seconds)))

    assert report.kept, report
    joining = [joined for joined, seconds in shown if not seconds]
    assert joining[0] == 0
    assert len(joining) > 1
    assert {joined for joined, seconds in shown if seconds} == {120}  # the load begins with all of them


async def test_the_verb_ends_with_1_where_nobody_answers(tmp_path: Path) -> None:
    arguments = ("load", "http://127.0.0.1:9", "--members", "0", "--duration", "0.5", "--json")
    done = await trio.to_thread.run_sync(partial(run_to_end, tmp_path, *arguments))

    assert done.returncode == 1
    assert json.loads(done.stdout)["kept"] is False
