"""How a logged event becomes a line: its time, its form for machines or for people, and the one write.

A line is made for each request, so what can be done once a second or once a process is not done each time.
"""

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from structlog.types import EventDict, WrappedLogger

from service.platform.errors import plain

# What is shown below the line, as it has lines of its own.
_TEXTS = ("exception", "stack", "tree")
_DIM, _BOLD, _CYAN, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"
_COLOURS = {"debug": _DIM, "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}
_EVENT_WIDTH = 18  # most events fit, so that what follows stands in a column
_NUMBERS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}

# One encoder, as json.dumps makes a new one for each call that is not plain. NaN is no JSON, whatever Python says.
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, default=repr).encode


def drop_quiet(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop what is below the level of the standard library's root, which can be changed at any time."""
    if _NUMBERS[method] < logging.root.level:
        raise structlog.DropEvent
    return event


def add_level(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["level"] = method
    return event


class Stamp:
    """Adds the time: for machines in UTC with microseconds, for people the clock on their wall."""

    def __init__(self, *, people: bool) -> None:
        self._people = people
        self._made = (0, "")  # the second, and its text

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        now = time.time()
        second, text = self._made
        if int(now) != second:
            second = int(now)
            text = (
                time.strftime("%H:%M:%S", time.localtime(second))
                if self._people
                else time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            )
            self._made = second, text  # in one go: threads log as well
        event["timestamp"] = text if self._people else f"{text}.{int((now - second) * 1e6):06d}Z"
        return event


class Json:
    """Writes an event for machines. ASCII alone: a line stays one line, whatever a client sent."""

    def __init__(self, stamp: Stamp, outlet: Callable[[str], "Outlet"]) -> None:
        self._stamp = stamp
        self._outlet = outlet

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        try:
            return _encode(event)
        except Exception:  # a key that is no text, a list that holds itself, a repr that fails: a line ends nothing
            return _encode({name: _held(value) for name, value in event.items()})

    def direct(self, name: str) -> Callable[[str, EventDict], None]:
        """Return what writes a whole event of the logger `name`, past everything else; called with its level."""
        write, stamp = self._outlet(name).write, self._stamp

        def tell(level: str, event: EventDict) -> None:
            number = _NUMBERS[level]
            if number >= logging.root.level:
                event["level"] = level
                write(number, _encode(stamp(None, level, event)))

        return tell


def direct(name: str) -> Callable[[str, EventDict], None]:
    """Return what logs events that have all their fields already; called with a level and the event.

    What structlog does for a line costs several times what JSON and the write do, so it is not done for each request.
    Where its chain does not end in our JSON (the console, a test that listens) it is gone through.
    """
    log = structlog.get_logger(name).bind()
    chain = structlog.get_config()["processors"]
    last = chain[-1] if chain else None
    write = last.direct(name) if isinstance(last, Json) else None

    def tell(level: str, event: EventDict) -> None:
        if write is not None and chain[-1] is last:
            write(level, event)
        else:
            getattr(log, level)(**event)

    return tell


class Console:
    """Writes an event for people: what happened in a column, then its fields; exceptions and trees below it."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        time, level, what = (str(event.pop(key, "")) for key in ("timestamp", "level", "event"))
        texts = [plain(str(event.pop(key)).rstrip()) for key in _TEXTS if key in event]
        request_id = event.pop("request_id", "")
        line = [
            self._in(_DIM, time),
            self._in(_COLOURS.get(level, ""), f"{level:<7}"),
            self._in(_BOLD, f"{_shown(what, quoted=False):<{_EVENT_WIDTH}}"),
            *(f"{self._in(_CYAN, key)}={_shown(value)}" for key, value in event.items() if value != ""),
        ]
        if request_id:
            line.append(self._in(_DIM, _shown(request_id)))
        return "\n".join([" ".join(line).rstrip(), *texts])

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours and colour else text


class Outlet:
    """What structlog hands the lines of one logger to: our handler's stream, and whoever else handles the root's.

    The standard library's record costs as much as the rest of a line, so it is made only where somebody else reads it.
    """

    def __init__(self, handler: "logging.StreamHandler[Any]", name: str) -> None:
        self._handler = handler
        self._name = name
        self.debug = partial(self.write, logging.DEBUG)
        self.info = partial(self.write, logging.INFO)
        self.warning = partial(self.write, logging.WARNING)
        self.error = partial(self.write, logging.ERROR)
        self.critical = partial(self.write, logging.CRITICAL)

    def write(self, level: int, line: str) -> None:
        handler = self._handler
        try:
            with handler.lock:  # type: ignore[union-attr]  # every handler makes itself one
                handler.stream.write(line + "\n")
                handler.stream.flush()
        except OSError:  # no room, or nobody reads: Unheld counts the lines, and its own text would be one more of them
            pass
        except Exception:  # as the standard library's own handlers: a log that cannot be written ends nothing
            handler.handleError(logging.LogRecord(self._name, level, "", 0, line, None, None))
        if len(logging.root.handlers) > 1:
            self._tell_others(level, line)

    def _tell_others(self, level: int, line: str) -> None:
        for other in logging.root.handlers:
            if other is not self._handler and level >= other.level:
                other.handle(logging.LogRecord(self._name, level, "", 0, line, None, None))


def outlets(handler: "logging.StreamHandler[Any]") -> Callable[..., Outlet]:
    """Return what makes one Outlet for each name."""
    made: dict[str, Outlet] = {}

    def outlet(name: str = "", *_: object) -> Outlet:
        found = made.get(name)
        if found is None:
            found = made[name] = Outlet(handler, name)
        return found

    return outlet


def _held(value: object) -> object:
    """Return a value as JSON holds it: as it is, or else its text."""
    try:
        _encode(value)
    except Exception:
        return _text(value)
    return value


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # of somebody's own class; what is done meanwhile must not end with it
        return f"a {type(value).__name__} that cannot be shown: {type(error).__name__}"


def _shown(value: object, *, quoted: bool = True) -> str:
    """Return a value on one line and without control characters, whoever sent it."""
    text = _text(value)
    if not text.isprintable() or (quoted and (not text or " " in text)):
        return repr(text)
    return text
