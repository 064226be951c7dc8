"""What is logged, as machines and as people read it."""

import json
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from opentelemetry import propagate

from service.platform.telemetry.logs import LogLevel, Style, configure_logs, log_level, set_log_level

log = structlog.get_logger(__name__)

type Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
async def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Log as JSON, and return what reads the lines since then. Async: pytest has put its own handlers by then."""
    configure_logs("info", "json")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_lines_of_libraries_are_json_as_well(lines: Lines) -> None:
    logging.getLogger("some.library").warning("lost %s of\n%s", 1, "\udcff\x00")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", stacklevel=1)

    library, warning = lines()
    assert (library["event"], library["level"], library["logger"]) == (
        "lost 1 of\n\udcff\x00",
        "warning",
        "some.library",
    )
    assert "old ways" in warning["event"]


async def test_an_error_that_a_library_logs_is_shown_in_full(lines: Lines) -> None:
    """The standard library hands it on in three parts."""
    try:
        try:
            dict[str, str]()["two"]
        finally:
            int("one")
    except ValueError:
        logging.getLogger("some.library").exception("failed")

    [line] = lines()
    assert line["event"] == "failed"
    assert line["exception"].endswith("\nValueError: invalid literal for int() with base 10: 'one'")
    assert "KeyError: 'two'" in line["exception"]


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_headers_of_traces_that_a_client_makes_up_are_not_repeated(lines: Lines, level: str) -> None:
    """Each request of a stranger was a line with all of his `baggage`, where traces are wanted."""
    set_log_level(level)
    traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    for headers in (
        {"baggage": "secret" * 2_000},
        {"baggage": "secret"},
        {"baggage": "secret=1," * 200},
        {"traceparent": traceparent, "tracestate": "secret"},
        {"traceparent": traceparent, "tracestate": ",".join(f"secret{number}=1" for number in range(40))},
    ):
        propagate.extract(headers)

    assert lines() == []


async def test_an_error_is_shown_with_its_whole_group_and_the_tasks_it_came_from(lines: Lines) -> None:
    async def first() -> None:
        raise ValueError("one")

    async def second() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            raise KeyError("two")

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second)
    except* Exception:
        log.exception("failed")

    [line] = lines()
    assert "ValueError: one" in line["exception"]
    assert "KeyError: 'two'" in line["exception"]
    name = "test_an_error_is_shown_with_its_whole_group_and_the_tasks_it_came_from.<locals>"
    assert set(line["task"].split(", ")) == {f"{__name__}.{name}.{task}" for task in ("first", "second")}


async def test_an_error_is_shown_from_however_many_nurseries_inside_of_each_other(lines: Lines) -> None:
    """A crash at ready came out of 11, and the traceback's last words were "... (max_group_depth is 10)"."""

    async def nest(more: int) -> None:
        async with trio.open_nursery():
            if more:
                await nest(more - 1)
            raise ValueError("the cause")

    try:
        await nest(40)
    except* ValueError:
        log.exception("failed")

    [line] = lines()
    assert "ValueError: the cause" in line["exception"]


async def test_an_error_that_quotes_what_a_caller_sent_is_cut_line_by_line(lines: Lines) -> None:
    try:
        raise ValueError("one" * 100_000)  # noqa: TRY301  here, for its traceback
    except ValueError:
        log.exception("failed")

    [line] = lines()
    assert "ValueError: oneone" in line["exception"]
    assert len(json.dumps(line)) < 5_000


async def test_of_an_error_with_many_lines_the_first_and_the_last_are_shown(lines: Lines) -> None:
    try:
        raise ExceptionGroup(  # noqa: TRY301  here, for its traceback
            "the first words", [ValueError("one\n" * 100_000), LookupError("the last words")]
        )
    except ExceptionGroup:
        log.exception("failed")

    [line] = lines()
    assert line["exception"].startswith("  + Exception Group Traceback (most recent call last):\n")
    assert "the first words" in line["exception"]
    assert "LookupError: the last words\n" in line["exception"]
    assert re.search(r"\n… \d+ lines are left out …\n", line["exception"])
    assert len(json.dumps(line)) < 60_000


async def test_an_error_without_a_group_names_the_task_that_logs_it(lines: Lines) -> None:
    try:
        int("one")
    except ValueError:
        log.exception("failed")

    assert lines()[0]["task"] == trio.lowlevel.current_task().name


async def test_a_changed_level_returns_by_itself(lines: Lines, autojump_clock: trio.testing.MockClock) -> None:
    level = LogLevel("info")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(level.run)
        level.change("debug", 60)
        seen = [(log_level(), level.seconds_left)]
        await trio.sleep(30)
        level.change("error", 60)  # the later one counts
        await trio.sleep(59)
        seen.append((log_level(), level.seconds_left))
        await trio.sleep(2)
        seen.append((log_level(), level.seconds_left))
        level.change("debug", 10)
        await trio.sleep(11)
        seen.append((log_level(), level.seconds_left))
        nursery.cancel_scope.cancel()

    assert seen == [("debug", 60), ("error", pytest.approx(1)), ("info", None), ("info", None)]


async def test_a_level_that_is_changed_in_the_moment_of_its_end_stays(
    lines: Lines, autojump_clock: trio.testing.MockClock
) -> None:
    """Which of the two comes first in such a moment is Trio's choice: each of the orders is among some."""
    level = LogLevel("warning")
    left = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(level.run)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(30):
            level.change("debug", 1)
            await trio.sleep(1)
            level.change("debug", 60)
            await trio.testing.wait_all_tasks_blocked()
            left.append((log_level(), level.seconds_left))
        nursery.cancel_scope.cancel()

    assert left == [("debug", 60)] * 30


class Mute:
    def __repr__(self) -> str:
        raise LookupError("not now")


ROUND: list[object] = []
ROUND.append(ROUND)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (ROUND, "[[...]]"),
        (float("nan"), "nan"),
        ([1, Mute()], "a list that cannot be shown: LookupError"),
    ],
    ids=["a key that is no text", "one that holds itself", "no number", "one that cannot be shown"],
)
@pytest.mark.parametrize("style", ["json", "console"])
def test_a_value_that_no_line_can_hold_ends_nothing(
    capsys: pytest.CaptureFixture[str], style: Style, value: object, shown: str
) -> None:
    configure_logs("info", style)
    log.info("told", value=value, other=[1])
    structlog.reset_defaults()

    [line] = capsys.readouterr().err.splitlines()
    if style == "json":
        told = json.loads(line, parse_constant=pytest.fail)
        assert (told["event"], told["value"], told["other"]) == ("told", shown, [1])
    else:
        assert f"value={shown} " in line.replace("'", "")


def test_the_console_is_for_people_and_shows_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    log.info("request", method="GET", client="a\x1b[31m\nforged", request_id="abc")
    try:
        raise ValueError("a\x1b]52;c;b25l\x07 \x9b31m\x7f\ttold")  # noqa: TRY301  here, for its traceback
    except ValueError:
        log.exception("failed")
    structlog.reset_defaults()

    request, failed, *below = capsys.readouterr().err.splitlines()
    assert request.split(" ", 1)[1] == r"info    request            method=GET client='a\x1b[31m\nforged' abc"
    assert failed.split(" ", 1)[1].startswith("error   failed")
    assert below[-1] == r"ValueError: a\x1b]52;c;b25l\x07 \x9b31m\x7f" + "\ttold"
