"""One connection to PostgreSQL, as the driver and SQLAlchemy see it, and the means to tell its life from its death.

Theory of operation. Four objects are one connection: libpq's (`pgconn`), the driver's (`dbapi`), SQLAlchemy's account
of it (`_proxied`, made by its first unit and kept) and a second descriptor of the same socket (`_socket`).

Who may use what. While it is out: its unit's thread alone, or the task of one that has none, but for `cut` and for a
cancel request, which any thread may make, as one only needs the second descriptor and the other a connection of its
own. While it is idle: the event loop.
The two never overlap: the pool hands it over before the thread starts, and gets it back after the thread has ended.

What cannot happen, and why.
- A cut that hits a stranger: a descriptor's number is used again as soon as it is closed, by the driver, on its thread.
  Ours is closed by `close` alone, in the loop, after the thread.
- A unit that goes on with another connection: SQLAlchemy asks `_hand_over` for a new one when the driver's broke. That
  answers only while `connection` asks on the same thread, and raises ConnectionLost otherwise.
- Options of one unit that reach the next: each gets a fresh `Connection` over the same account.
- An idle connection that is taken for healthy with words of the server unread: `found_dead` reads them first; silence
  is no proof of life, though, and BEGIN may still find it dead (DeadAtBegin).
"""

import contextlib
import os
import socket
import threading

import psycopg
import trio
from psycopg import pq
from psycopg.errors import Diagnostic
from psycopg.pq.abc import PGconn
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import NullPool, PoolProxiedConnection

from service.platform.database.wire import is_read_only, why_no_writes
from service.platform.errors import OutcomeUnknown

# The connection whose first unit runs on this thread; SQLAlchemy asks for it once and keeps it.
_opening = threading.local()


class ConnectionLost(Exception):
    """The connection died; the unit that was on it is not committed."""


class Warnings:
    """Of what the server warns: the one that takes something back. Heard where the answer is read."""

    __slots__ = ("not_replicated",)

    def __init__(self) -> None:
        self.not_replicated = False  # a COMMIT has not waited for its synchronous standby to the end

    def hear(self, notice: Diagnostic) -> None:
        """Tell it by the place in PostgreSQL, as words are translated and the SQLSTATE is that of all warnings."""
        self.not_replicated |= notice.source_function == "SyncRepWaitForLSN"

    def refuse_unreplicated(self) -> None:
        """Raise OutcomeUnknown for the COMMIT that was just answered, if it was not waited for."""
        if self.not_replicated:
            self.not_replicated = False
            raise OutcomeUnknown("the wait for the synchronous standby was cancelled: it is lost if that takes over")


class PooledConnection:
    """A connection made by `wire.connect`. One unit at a time uses it, on its own thread."""

    __slots__ = ("_open", "_pid", "_proxied", "_socket", "dbapi", "heard", "pgconn", "prepared", "prepares", "warnings")

    def __init__(self, pgconn: PGconn, *, prepares: bool, open_pids: set[int]) -> None:
        """`open_pids` has the number of this connection's process at the server for as long as it is open."""
        self.pgconn = pgconn
        # A descriptor of our own: it cannot be closed, and its number reused, between the decision to cut and the cut.
        self._socket = socket.socket(fileno=os.dup(pgconn.socket))
        self.dbapi: psycopg.Connection = psycopg.Connection(pgconn)
        self.dbapi.autocommit = True  # the unit says BEGIN itself: so it knows that nothing else was sent
        if not prepares:
            self.dbapi.prepare_threshold = None
        self.prepares = prepares
        self.prepared: dict[object, bytes] = {}  # names that the server knows statements by: see statement.py
        self.heard = trio.current_time()  # when the server was last known to answer on it: the pool keeps it
        self.warnings = Warnings()
        self.dbapi.add_notice_handler(self.warnings.hear)  # with a method of this object's it would be a circle
        self._proxied: PoolProxiedConnection | None = None
        self._open, self._pid = open_pids, pgconn.backend_pid
        open_pids.add(self._pid)  # last, as one that was not made is never closed

    def connection(self, engine: Engine) -> Connection:
        """Return a fresh Connection of SQLAlchemy, so that its options do not reach the next unit; on a thread."""
        if self._proxied is None:
            _opening.pooled = self
            try:
                self._proxied = engine.raw_connection()
            finally:
                _opening.pooled = None
        return Connection(engine, self._proxied)

    @property
    def usable(self) -> bool:
        """True when the driver knows of no fault and no transaction is left open."""
        return not self.broken and self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    @property
    def broken(self) -> bool:
        return self.dbapi.closed or self.pgconn.status != pq.ConnStatus.OK

    @property
    def standby(self) -> bool:
        """True when it leads to a server that takes no writes; one that was promoted says so with its next answer."""
        return bool(why_no_writes(self.pgconn))

    @property
    def read_only(self) -> bool:
        """True when its server's operators want nothing written; not asked of a pooler, which tells what was once."""
        return self.prepares and is_read_only(self.pgconn)

    def found_dead(self) -> bool:
        """Look, without a round trip, whether the server ended this idle connection."""
        try:
            while self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                self.pgconn.consume_input()  # a notice, a changed parameter, or the server's last words
        except BlockingIOError:
            return not self.usable  # silence: the sound of health
        except (OSError, psycopg.OperationalError):
            pass
        return True

    def cut(self) -> None:
        """End the connection under whoever uses it; from any thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, also when that was done before."""
        self._open.discard(self._pid)
        self._socket.close()
        if self._proxied is not None:
            self._proxied.close()  # SQLAlchemy's accounts
        self.dbapi.close()


def create_engine_over() -> Engine:
    """Return SQLAlchemy's part: dialect, compiled statements and events; the connections are ours."""
    return create_engine(
        "postgresql+psycopg://",
        creator=_hand_over,
        poolclass=NullPool,
        pool_reset_on_return=None,
        hide_parameters=True,  # users' values do not belong into errors that are logged
        use_native_hstore=False,
    )


def _hand_over() -> DBAPIConnection:
    pooled: PooledConnection | None = getattr(_opening, "pooled", None)
    if pooled is None:
        raise ConnectionLost("the connection was lost; a unit of work cannot go on with another")
    return pooled.dbapi  # type: ignore[return-value]  # SQLAlchemy's protocol for drivers is narrower than psycopg's types
