"""Who holds the event loop is found, whatever the thread that looks for it was doing when the hold began."""

import linecache
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from service.platform.inside.watchdog import Hold, Watchdog, running_task

HOLD = 6_000_000  # numbers to sum up in one call of C, which lets no other thread run: some tenths of a second
LOOK = Watchdog._look


@contextmanager
def traced(at_line: Callable[[int], object]) -> Iterator[None]:
    """Call `at_line` before each line of the looking thread, on that thread."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not LOOK.__code__:
            return None
        if event == "line":
            at_line(frame.f_lineno)
        return trace

    threading.settrace(trace)
    try:
        yield
    finally:
        threading.settrace(None)


async def lines_of_a_look() -> list[int]:
    """Return the lines that every look at a free loop goes through."""
    lines: list[int] = []
    with traced(lines.append):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Watchdog(0.05).run)
            while len(lines) < 30 or lines.count(lines[5]) < 3:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    return sorted({line for line in lines if lines.count(line) > 1})


async def test_a_hold_is_seen_that_began_in_the_middle_of_a_look() -> None:
    """At whatever line: what is missed there is missed each time, and once where a busy machine stops the thread."""
    lines = await lines_of_a_look()
    missed = [line for line in lines if not (await hold_at(line) or await hold_at(line) or await hold_at(line))]

    assert len(lines) > 4
    assert missed == []


async def hold_at(line: int) -> bool:
    """Hold the loop from when the thread is at that line, and tell whether this line here was named."""
    there = threading.Event()

    def at_line(number: int) -> None:
        if number == line and not there.is_set():
            there.set()
            time.sleep(0.005)  # lets the loop go on, which then keeps us out

    watchdog = Watchdog(0.05)
    with traced(at_line):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.run)
            while not there.is_set():
                await trio.lowlevel.checkpoint()
            sum(range(HOLD))
            with trio.move_on_after(2):
                while not watchdog.holds:  # noqa: ASYNC110  # a number has no event
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    return watchdog.last is not None and "test_watchdog.py" in watchdog.last.where


@pytest.mark.parametrize("request_id", ["r-1", ""])
async def test_who_sleeps_on_the_loop_is_told_with_its_request_before_the_loop_goes_on(request_id: str) -> None:
    """What takes no processor's time is seen by the thread alone: the signal's clock stands still with it."""
    structlog.contextvars.bind_contextvars(request_id=request_id)
    if not request_id:
        structlog.contextvars.unbind_contextvars("request_id")
    with structlog.testing.capture_logs() as logs, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Watchdog(0.05).run)
            await trio.sleep(0.1)
            end = time.perf_counter() + 30
            while not (told := [line for line in logs if line["event"] == "event loop held"]):
                assert time.perf_counter() < end
                time.sleep(0.01)  # noqa: ASYNC251  it holds the loop
            nursery.cancel_scope.cancel()
    structlog.contextvars.unbind_contextvars("request_id")

    assert [line["request_id"] for line in told] == [request_id]
    assert "test_watchdog.py" in told[0]["where"]


async def test_c_code_is_named_also_where_the_thread_gets_the_interpreter_too_late() -> None:
    """Others wait for it too, as when the database answered some: who is next is chance, and the loop has gone on."""
    held, ended = threading.Event(), threading.Event()
    watchdog = Watchdog(0.05)
    with traced(lambda _: held.is_set() and ended.wait(0.02)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.run)
            await trio.sleep(0.1)
            held.set()
            sum(range(HOLD))  # C
            end = time.thread_time() + 0.1
            while time.thread_time() < end:
                pass
            with trio.fail_after(60):
                while watchdog.last is None:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    assert line_of(watchdog.last) == "sum(range(HOLD))  # C"


def line_of(hold: Hold) -> str:
    """Return what the line says in which the loop was held."""
    file, _, line = hold.where.rpartition(":")
    return linecache.getline(file, int(line)).strip()


async def held_in_c(trace: Callable[[FrameType, str, Any], Any]) -> Hold:
    """Return what is seen of a hold in C code, behind which the loop's own thread is traced."""
    watchdog = Watchdog(0.05)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.run)
        await trio.sleep(0.1)
        sys.settrace(trace)
        sum(range(HOLD))  # C
        sys.settrace(None)
        with trio.fail_after(60):
            while watchdog.last is None:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    return watchdog.last


async def test_the_look_of_the_signal_is_not_what_holds_the_loop() -> None:
    """The thread may look in its middle, where others wait for the interpreter."""
    seen: list[str] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "call" and frame.f_code is Watchdog._catch.__code__:
            time.sleep(0.05)  # the thread looks meanwhile
            seen.append(frame.f_code.co_name)

    hold = await held_in_c(trace)

    assert seen
    assert line_of(hold) == "sum(range(HOLD))  # C"


async def test_nor_is_a_look_of_the_signal_in_which_the_next_one_comes() -> None:
    """As where the C code has kept others from the interpreter, who take their time once it lets them."""
    nested: list[str] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        within = frame.f_back
        if event != "call" or frame.f_code is not running_task.__code__ or within is None or nested:
            return
        if within.f_code is Watchdog._catch.__code__:
            nested.append(frame.f_code.co_name)
            signal.raise_signal(signal.SIGPROF)

    hold = await held_in_c(trace)

    assert nested
    assert line_of(hold) == "sum(range(HOLD))  # C"


async def test_a_signal_that_is_somebody_elses_stays_so() -> None:
    came: list[int] = []
    signal.signal(signal.SIGPROF, lambda number, _: came.append(number))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Watchdog(0.05).run)
            await trio.sleep(0.1)
            sum(range(HOLD))
            signal.raise_signal(signal.SIGPROF)
            nursery.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    assert came == [signal.SIGPROF]


async def test_a_hold_has_its_own_seconds_whatever_the_one_before_it_took(autojump_clock: MockClock) -> None:
    watchdog = Watchdog(0.05, now=autojump_clock.current_time)

    async def hold(seconds: float) -> tuple[bool, float]:
        watchdog._culprit = "a task", "a line", 0.1  # as the thread notes it
        autojump_clock.jump(seconds)
        await trio.sleep(1)
        condition = watchdog.condition()
        return condition["ok"], round(condition["duration"], 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.run)
        await trio.sleep(1)
        told = [await hold(seconds) for seconds in (2, 0.5)]
        nursery.cancel_scope.cancel()

    assert told == [(False, 2.0), (True, 0.5)]


@pytest.mark.parametrize(("seconds", "ago", "ok"), [(0.9, 0, True), (1.0, 0, False), (9.0, 50, False), (9.0, 70, True)])
def test_a_long_hold_is_no_good_health_for_a_minute(seconds: float, ago: float, ok: bool) -> None:
    watchdog = Watchdog(0.05)
    watchdog.last = Hold("a task", "a line", seconds, until=time.monotonic() - ago)

    assert watchdog.condition()["ok"] is ok


async def test_nothing_of_it_is_left_in_the_process() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Watchdog(0.05).run)
        await trio.sleep(0.01)
        during = signal.getsignal(signal.SIGPROF), signal.getitimer(signal.ITIMER_PROF)[1] > 0
        nursery.cancel_scope.cancel()

    assert callable(during[0])
    assert during[1]
    assert signal.getsignal(signal.SIGPROF) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


async def test_nobody_is_named_while_the_clock_stands_still() -> None:
    """As at a breakpoint: on a busy machine it takes longer than a slow step until the prompt is there."""
    still: list[float] = []
    watchdog = Watchdog(0.05, now=lambda: still[0] if still else time.perf_counter())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.run)
        await trio.sleep(0.1)
        still.append(time.perf_counter() + 0.2)
        time.sleep(0.5)  # noqa: ASYNC251  the prompt
        named = watchdog._culprit
        nursery.cancel_scope.cancel()

    assert named is None
