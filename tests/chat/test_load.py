"""What `service load` finds in the chat: planted violations, and none where a service keeps its promises."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from trio_websocket import WebSocketRequest, serve_websocket

from service.chat import CHAT
from service.chat.client.load import JOIN_LIMIT, JOINING, Load, Options
from service.chat.client.load_check import Checker, Cursor
from service.platform.client import NothingThere
from service.platform.client.load import run_load
from service.platform.client.load_http import HttpLoad
from service.platform.client.load_plan import Plan, Report
from service.platform.client.load_report import text
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.processes import PATIENCE, SERVICE, environment


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


class Looked(dict[tuple[int, str], Cursor]):
    """Cursors that count how often somebody goes through all of them."""

    looks = 0

    def items(self) -> Any:
        self.looks += 1
        return super().items()


def test_what_is_missing_is_found_in_one_look_at_the_members_however_many_messages_there_are() -> None:
    """The client's event loop stands meanwhile, in the very seconds in which it waits for the last of them."""
    checker = Checker(_cursors=(cursors := Looked()))
    for member in range(10):
        checker.joined(member, "r", "e", 0, gap=False)
    for seq in range(1, 101):
        checker.acked("r", "e", seq, f"{seq}", dup=False)

    assert checker.missing() == 100
    assert cursors.looks == 1


def test_a_run_in_which_nothing_worked_kept_nothing() -> None:
    plan = Plan(url="", duration=1)
    load = Load(plan, Options(members=1, writers=1, rooms=1, rate=1))
    silent = Report(plan, [load]).kept
    load.acked = 1

    assert not silent
    assert Report(plan, [load]).kept
    assert not Report(plan, [load, HttpLoad(plan, rate=1, path="/")]).kept


async def test_a_service_under_load_keeps_its_promises(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    shown: list[int] = []
    async with booted(settings, [CHAT]) as urls:
        plan = Plan(url=urls.public, duration=1.5)
        load = Load(plan, Options(members=12, writers=4, rooms=3, rate=40))
        report = Report(plan, [HttpLoad(plan, rate=20, path="/openapi.json"), load])
        with trio.fail_after(30):
            await run_load(report, lambda *_: shown.append(load.acked))
        async with httpx2.AsyncClient() as client:
            metrics = (await client.get(urls.management + "/metrics")).text

    closes = re.findall(r"(?m)^websocket_closes_total(.*)", metrics)
    assert closes == ['{code="1000"} 12.0'], "members leave with a close frame"
    assert report.kept, report.json()
    assert load.sent == load.acked == 60
    assert load.received == 60 * 4
    assert shown[-1] == 60
    assert len(set(shown)) > 2
    assert "every guarantee was kept" in text(report)
    assert json.loads(report.json())["statuses"] == {"200": 30}
    assert json.loads(report.json())["seconds"]["delivery"]["p50"] > 0


async def test_members_are_counted_while_they_join(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", rate_per_address=0)
    shown: list[tuple[int, float]] = []
    counted: set[int] = set()
    async with booted(settings, [CHAT]) as urls, trio.open_nursery() as nursery:
        plan = Plan(url=urls.public, duration=0.5)
        load = Load(plan, Options(members=120, writers=1, rooms=3, rate=2))

        async def count() -> None:  # in each turn of the loop: how often it is shown is a matter of time
            while True:
                counted.add(load.joined)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(count)
        with trio.fail_after(60):
            await run_load(Report(plan, [load]), lambda _, seconds: shown.append((load.joined, seconds)))
        nursery.cancel_scope.cancel()

    assert load.kept, load.figures()
    assert shown[0][0] == 0
    assert len(counted) > 2, "none between none and all"
    assert (min(counted), max(counted)) == (0, 120)
    assert {joined for joined, seconds in shown if seconds} == {120}  # the load begins with all of them


async def test_who_has_lost_his_line_is_not_said_to_be_there(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", drain_spread=0)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            async with booted(settings, [CHAT]) as urls:
                load = Load(Plan(url=urls.public, duration=60), Options(members=3, writers=1, rooms=1, rate=1))
                await load.prepare(nursery)
                there = [bar.done for bar in load.bars()[:1]]
            while load.joined:
                await trio.sleep(0.02)
        there += [bar.done for bar in load.bars()[:1]]
        nursery.cancel_scope.cancel()

    assert there == [3, 0]


async def test_who_never_joined_is_not_said_to_reconnect_and_the_reason_is_told(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", max_websockets=1)
    async with booted(settings, [CHAT]) as urls:
        load = Load(Plan(url=urls.public, duration=0.5), Options(members=2, writers=1, rooms=1, rate=1))
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.prepare, nursery)
                while not (load.not_joining and load.joined):
                    await trio.sleep(0.02)
                nursery.cancel_scope.cancel()

    assert load.reconnects == 0
    assert "members           2, of whom 1 joined (refused with status 503), reconnected 0 times" in load.lines()


@pytest.mark.parametrize("json_option", [(), ("--json",)])
async def test_where_no_chat_is_served_that_is_said_before_the_load_begins(
    tmp_path: Path, make_settings: MakeSettings, json_option: tuple[str, ...]
) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, []) as urls:
        with trio.fail_after(PATIENCE):  # had it waited for others who can join, it would say what came of the load
            done = await trio.run_process(
                [*SERVICE, "load", urls.public, *json_option], capture_stdout=True, capture_stderr=True, check=False,
                cwd=tmp_path, env=environment(),
            )  # fmt: skip

    said = f"{urls.public} serves no chat: refused with status 404; load it without by --members 0\n"
    assert (done.returncode, done.stderr.decode()) == (1, said)
    assert [json.loads(line)["kept"] for line in done.stdout.splitlines()] == [False] * len(json_option)


async def expect_nothing_there(port: int, words: str, *, members: int) -> None:
    plan = Plan(url=f"http://127.0.0.1:{port}", duration=1)
    load = Load(plan, Options(members=members, writers=1, rooms=1, rate=1))
    with pytest.RaisesGroup(pytest.RaisesExc(NothingThere, match=words), flatten_subgroups=True):
        await run_load(Report(plan, [load]), lambda *_: None)


@pytest.mark.parametrize("greeting", ["{}", "[]"])
async def test_another_websocket_service_is_not_loaded(greeting: str) -> None:
    async def greet(request: WebSocketRequest) -> None:
        line = await request.accept(subprotocol="chat.v1")
        await line.send_message(greeting)
        await trio.sleep_forever()

    with trio.fail_after(JOIN_LIMIT):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, greet, "127.0.0.1", 0, ssl_context=None))
            await expect_nothing_there(server.port, "it greets in another way", members=1)
            nursery.cancel_scope.cancel()


async def test_a_port_that_hangs_up_is_not_waited_for() -> None:
    """As a proxy does whose service is another one; also with many members, whose tries are not one another's."""

    async def hang_up(_: trio.SocketStream) -> None:
        return

    with trio.fail_after(JOIN_LIMIT):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
            await expect_nothing_there(
                listener.socket.getsockname()[1], "ends each connection without an answer", members=20
            )
            nursery.cancel_scope.cancel()


async def test_who_waits_for_its_turn_to_join_has_no_connection_yet() -> None:
    """A service ends what says nothing for seconds, and with many members a turn may be a minute away."""
    connected = 0

    async def say_nothing(_: trio.SocketStream) -> None:
        nonlocal connected
        connected += 1
        await trio.sleep_forever()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
            plan = Plan(url=f"http://127.0.0.1:{listener.socket.getsockname()[1]}", duration=1)
            load = Load(plan, Options(members=JOINING + 10, writers=1, rooms=1, rate=1))
            nursery.start_soon(load.prepare, nursery)
            while connected < JOINING:
                await trio.sleep(0.01)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    assert connected == JOINING
