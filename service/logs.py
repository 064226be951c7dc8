"""Logging: structlog and the libraries' own lines, through one handler on standard error, as JSON or for people.

An event name is a short lower-case phrase; everything that varies is a field. Never a secret, a body or a query string.
"""

import logging
import math
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Literal

import structlog
import trio
from structlog.types import EventDict, Processor, WrappedLogger

type Style = Literal["json", "console"]

LEVELS = ("debug", "info", "warning", "error")

# The libraries' loggers that say nothing an operator needs below these levels.
_QUIET = {"hypercorn.error": logging.WARNING, "alembic": logging.WARNING, "httpx2": logging.WARNING}
# What is shown below the line, as it has lines of its own.
_TEXTS = ("exception", "stack", "tree")
_DIM, _BOLD, _CYAN, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"
_COLOURS = {"debug": _DIM, "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}
_EVENT_WIDTH = 18  # most events fit, so that what follows stands in a column

log = structlog.get_logger(__name__)


def configure_logs(level: str, style: Style) -> None:
    """Send everything that is logged in this process to standard error, one line an event (JSON) from now on."""
    console = style == "console"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        _exception_in_full,
    ]
    render: Processor = (
        Console(colours=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=True)  # a line stays one line, whatever a client sent
    )
    handler = logging.StreamHandler(sys.stderr)
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
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # tests configure more than once
    )


def set_log_level(level: str) -> None:
    """Set the least level that is logged; libraries stay as quiet as they are, unless it is debug."""
    logging.root.setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else least)


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
            self._scope = trio.CancelScope()
            set_log_level(self.usual)
            log.warning("log level returned", to=self.usual)


class Console:
    """Writes an event for people: what happened in a column, then its fields; exceptions and trees below it."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        time, level, what = (str(event.pop(key, "")) for key in ("timestamp", "level", "event"))
        texts = [str(event.pop(key)).rstrip() for key in _TEXTS if key in event]
        request_id = event.pop("request_id", "")
        line = [
            self._in(_DIM, time),
            self._in(_COLOURS.get(level, ""), f"{level:<7}"),
            self._in(_BOLD, f"{_shown(what, quoted=False):<{_EVENT_WIDTH}}"),
            *(f"{self._in(_CYAN, key)}={_shown(value)}" for key, value in event.items()),
        ]
        if request_id:
            line.append(self._in(_DIM, _shown(request_id)))
        return "\n".join([" ".join(line).rstrip(), *texts])

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours and colour else text


def _shown(value: object, *, quoted: bool = True) -> str:
    """Return a value on one line and without control characters, whoever sent it."""
    text = str(value)
    if not text.isprintable() or (quoted and (not text or " " in text)):
        return repr(text)
    return text


def _exception_in_full(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by the text of the whole exception group, causes included, and the tasks it came from."""
    error: Any = event.pop("exc_info", None)
    if error is True:
        error = sys.exception()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["task"] = ", ".join(dict.fromkeys(_tasks(error)))
        event["exception"] = "".join(traceback.format_exception(error))
    return event


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
