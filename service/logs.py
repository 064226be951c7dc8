"""Logging: structlog and the libraries' own lines, through one handler on standard error, as JSON or for people.

An event name is a short lower-case phrase; everything that varies is a field. Never a secret, a body or a query string.
"""

import logging
import sys
import traceback
from typing import Any, Literal

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

type Style = Literal["json", "console"]

# The libraries' loggers that say nothing an operator needs below these levels.
_QUIET = {"hypercorn.error": logging.WARNING, "alembic": logging.WARNING, "httpx2": logging.WARNING}


def configure_logs(level: str, style: Style) -> None:
    """Send everything that is logged in this process to standard error, one line an event (JSON) from now on."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exception_in_full,
    ]
    render: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=True)  # a line stays one line, whatever a client sent
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
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


def _exception_in_full(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by the text of the whole exception group, causes included."""
    error: Any = event.pop("exc_info", None)
    if error is True:
        error = sys.exception()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = "".join(traceback.format_exception(error))
    return event
