"""Errors that lie with the database, logged once a kind: a thousand requests that meet the same are one line.

The line names the unit, which is where to look; its traceback is logged at debug level.
"""

import time

import psycopg
import structlog
from sqlalchemy.exc import DBAPIError

from service.platform.database.sqlstate import one_line

AGAIN = 60.0  # seconds after which the same is worth another line
MOST = 200  # kinds that are remembered: texts name tables, and those are not without number, but nobody promised it
ORDINARY = "55P03"  # a lock that was not to be had in the time that the unit itself set

log = structlog.get_logger(__name__)


class Complaints:
    """What was logged, and when."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], float] = {}

    def tell(self, unit: str, sqlstate: str, error: DBAPIError | psycopg.Error) -> None:
        words = one_line(error)
        log.debug("unit refused", unit=unit, sqlstate=sqlstate, exc_info=error)
        now, key = time.monotonic(), (sqlstate, words)
        if sqlstate == ORDINARY or now - self._told.get(key, float("-inf")) < AGAIN:
            return
        if len(self._told) >= MOST:
            self._told.clear()
        self._told[key] = now
        log.error("refused by PostgreSQL", unit=unit, sqlstate=sqlstate, error=words)
