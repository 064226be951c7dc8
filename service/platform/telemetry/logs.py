"""Logging: structlog and the libraries' own lines, through one handler on standard error, as JSON or for people.

An event name is a short lower-case phrase; everything that varies is a field. Never a secret, a body or a query string.
"""

import logging
import math
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

import structlog
import trio
from structlog.contextvars import merge_contextvars
from structlog.types import EventDict, Processor, WrappedLogger

from service.platform.errors import MAX_DETAIL, cut
from service.platform.telemetry.lines import Console, Json, Stamp, add_level, drop_quiet, outlets
from service.platform.telemetry.unheld import Unheld

type Style = Literal["json", "console"]

MOST_TEXT = 40_000  # characters of an error with its traceback: some 500 lines
MOST_GROUPS = 100  # inside of each other: one for each nursery, and a service's own begin some ten deep
LEVELS = ("debug", "info", "warning", "error")

# The libraries' loggers that say nothing an operator needs below these levels, unless he asks for debug.
_QUIET = {
    "hypercorn.error": logging.WARNING,
    "alembic": logging.WARNING,
    # A collector that is away is a counter and one line of ours, not several for each try.
    "opentelemetry.exporter": logging.CRITICAL,
    "opentelemetry.sdk._shared_internal": logging.CRITICAL,
}
# Those that repeat what is sent or comes, at any level: of a stranger's request up to 16 KiB in a line, of a call to
# another service its query and the answer's headers, with what is secret in them.
_REPEATING = {
    "httpcore2": logging.WARNING,
    "httpx2": logging.WARNING,
    "opentelemetry.baggage": logging.CRITICAL,
    "opentelemetry.trace.span": logging.CRITICAL,
    "urllib3": logging.CRITICAL,
}

log = structlog.get_logger(__name__)


def configure_logs(level: str, style: Style) -> None:
    """Send everything that is logged in this process to standard error, one line an event (JSON) from now on."""
    people = style == "console"
    handler, stamp = logging.StreamHandler(sys.stderr), Stamp(people=people)
    outlet = outlets(handler)
    shared: list[Processor] = [merge_contextvars, add_level, stamp, _exception_in_full]
    render: Processor = Console(colours=sys.stderr.isatty()) if people else Json(stamp, outlet)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.root.handlers[:] = [handler]
    set_log_level(level)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[drop_quiet, *shared, render],
        logger_factory=outlet,
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),  # drop_quiet knows the level of the hour
        cache_logger_on_first_use=False,  # tests configure more than once
    )


def wait_for_no_reader() -> None:
    """Let whatever is written to standard error from now on wait for nobody; see unheld.py."""
    with suppress(OSError, AttributeError):  # there is no descriptor: somebody has put something else there
        sys.stderr = Unheld(sys.stderr, lambda lines: log.warning("log lines lost", lines=lines))
        for handler in logging.root.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)


def set_log_level(level: str) -> None:
    """Set the least level that is logged; libraries stay as quiet as they are, most of them unless it is debug."""
    logging.root.setLevel(level.upper())
    for name, least in (_QUIET | _REPEATING).items():
        heard = level == "debug" and name in _QUIET
        logging.getLogger(name).setLevel(logging.NOTSET if heard else least)


def log_level() -> str:
    return logging.getLevelName(logging.root.level).lower()


class LogLevel:
    """The level of this process, which may differ from the usual one for some time and then returns to it."""

    def __init__(self, usual: str) -> None:
        self.usual = usual
        self._scope = trio.CancelScope()

    @property
    def seconds_left(self) -> float | None:
        """Return how long the level stays what it is; None for good."""
        left = self._scope.deadline - trio.current_time()
        return None if math.isinf(left) else max(0.0, left)

    def change(self, level: str, seconds: float) -> None:
        """Log from `level` on, for that many seconds."""
        log.warning("log level changed", to=level, seconds=seconds)
        set_log_level(level)
        self._scope.deadline = trio.current_time() + seconds

    async def run(self) -> None:
        """Return to the usual level whenever the time is over; for ever."""
        while True:
            with self._scope:
                await trio.sleep_forever()
            ended, self._scope = self._scope, trio.CancelScope()
            if ended.deadline > trio.current_time():  # it was changed in the moment in which the time was over
                self._scope.deadline = ended.deadline
                continue
            set_log_level(self.usual)
            log.warning("log level returned", to=self.usual)


def _exception_in_full(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by the text of the whole exception group, causes included, and the tasks it came from."""
    error: Any = event.pop("exc_info", None)
    if error is True:
        error = sys.exception()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["task"] = ", ".join(dict.fromkeys(_tasks(error)))
        told = traceback.TracebackException.from_exception(error, compact=True, max_group_depth=MOST_GROUPS)
        lines = "".join(told.format()).splitlines()
        event["exception"] = "\n".join(_first_and_last([cut(line, MAX_DETAIL) for line in lines]))
    return event


def _first_and_last(lines: Sequence[str]) -> Sequence[str]:
    """Return the lines of an error, without the middle where it is long: a caller may have sent what is there."""
    if sum(map(len, lines)) + len(lines) <= MOST_TEXT:
        return lines
    first, last = (list(_within(MOST_TEXT // 2, some)) for some in (lines, reversed(lines)))
    return [*first, f"… {len(lines) - len(first) - len(last)} lines are left out …", *reversed(last)]


def _within(most: int, lines: Iterable[str]) -> Iterator[str]:
    """Yield lines that have so many characters together at most."""
    for line in lines:
        most -= len(line) + 1
        if most < 0:
            return
        yield line


def _tasks(error: BaseException) -> Iterator[str]:
    """Yield the tasks that raised: in a group a member's traceback starts with its task's function."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _tasks(member)
    elif trio.lowlevel.in_trio_task() and error is sys.exception():
        yield trio.lowlevel.current_task().name
    elif error.__traceback__ is not None:
        frame = error.__traceback__.tb_frame
        yield f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
