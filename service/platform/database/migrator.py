"""The connection that migrations are run over: waited for, with what is seen meanwhile, and one runner's at a time."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psycopg
import structlog
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from service.platform.database.address import Address, PasswordUnreadable, encoding_problem, pooler_problem
from service.platform.database.redaction import flat
from service.platform.database.refusals import MigrationRefused
from service.platform.database.wire import ANSWER_LIMIT
from service.platform.settings import PlatformSettings
from service.platform.settings.types import Seconds

LOCK = 0x5E12  # any number, but the same in every version: runners queue on it
# And on this one, which the connection has that migrations run over. What the server does there may outlive a runner
# that was killed or cut off, by a COMMIT that waits for a standby: the next one would make the same tables once more.
LOCK_OF_WORK = LOCK + 1
HELD_POLL = 5.0  # seconds between two looks at whether the lock is still held
LEAVE_LOOK = 1.0  # seconds that a look may still take when the migrations are over
LOCK_POLL = 0.1  # seconds; a blocking wait would hold a snapshot that CREATE INDEX CONCURRENTLY of the holder waits for
SERVER_POLL = 0.2
CONNECT_TIMEOUT = "5"
SHARING_LOOKS = 3  # at who answers, as traffic of others may come between two
# Whatever an address says that is made for reading, too; and not where operators hold the data still: what was migrated
# there would stay behind when they move.
WRITES = {"target_session_attrs": "read-write"}
READ_ONLY_WORDS = (  # libpq's, and ours
    "session is read-only",
    "the server takes no writes: it is a standby, or default_transaction_read_only is on",
)

# For the migrations' session, once the lock is held: a lock timeout would cut the wait for it too. A migration that
# cannot have its table in this time fails and may be repeated, rather than let all queries queue behind it.
SESSION = (
    "SET lock_timeout = '3s'",
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
    # which PostgreSQL has from version 17 on, and may not know
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'",
)

log = structlog.get_logger(__name__)


class ServerAway(Exception):
    """PostgreSQL cannot be reached or has no time for us: worth a repeat. The message has the reason, no secrets."""


@contextmanager
def open_migrator(settings: PlatformSettings, *, wait: Seconds = 60) -> Iterator[Connection]:
    """Yield a connection for migrations while no other runner has one. Raises ServerAway and MigrationRefused."""
    address = Address.direct(settings)
    with _open_guard(address, wait) as guard, closing(_wait_connected(address, wait)) as worker:
        with _answering(worker):
            for statement in SESSION:
                worker.execute(statement)
        for _ in _until_locked(worker, LOCK_OF_WORK):
            pass
        worker.autocommit = False
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: worker, poolclass=StaticPool, hide_parameters=True
        )  # as the service's own: a migration that fills a column has users' values, and its errors are logged
        with _held(guard, worker), engine.connect() as connection:
            yield connection


def _wait_connected(address: Address, wait: Seconds) -> psycopg.Connection:
    """Connect to a server that takes writes; each new reason why there is none yet is a line in the log."""
    started, told = time.monotonic(), ""
    while True:
        found = _connect(address)
        waited = time.monotonic() - started
        if isinstance(found, psycopg.Connection):
            if told:
                log.info("database reached", waited=round(waited, 1))
            return found
        if waited >= wait:
            raise ServerAway(f"PostgreSQL cannot be reached: {found}")
        if found != told:
            log.warning("database away", error=found, waiting_at_most=wait)
            told = found
        time.sleep(SERVER_POLL)


def _connect(address: Address) -> psycopg.Connection | str:
    """Return a connection to a server that takes writes, of all hosts, or why there is none now.

    Raises MigrationRefused for an address that will never do.
    """
    try:
        conninfo = make_conninfo("", **{"connect_timeout": CONNECT_TIMEOUT} | address.parameters | WRITES)
        return psycopg.connect(conninfo, autocommit=True)
    except (psycopg.OperationalError, PasswordUnreadable) as error:
        if problem := pooler_problem(str(error), past=True):
            raise MigrationRefused(f"{flat(error)}{problem}") from None
        return flat(error).replace(*READ_ONLY_WORDS)
    except psycopg.ProgrammingError as error:
        raise MigrationRefused(f"SERVICE_DATABASE_URL: {flat(error)}") from None


@contextmanager
def _open_guard(address: Address, wait: Seconds) -> Iterator[psycopg.Connection]:
    """Yield a connection that has the lock. One that is lost ahead of that has done nothing, and is made anew."""
    heard = time.monotonic()
    while True:
        with closing(_wait_connected(address, wait)) as guard:
            if problem := encoding_problem(guard.pgconn):
                raise MigrationRefused(problem)
            try:
                _refuse_sharing(guard, address, wait)
                for _ in _until_locked(guard, LOCK):
                    heard = time.monotonic()
            except psycopg.OperationalError as error:
                lost = flat(error)
            else:
                yield guard
                return
        if time.monotonic() - heard >= wait:  # also of a server that lets us in, and each time throws us out again
            what = "the connection was lost while another migration was waited for"
            raise ServerAway(f"{what}: {lost}; it may be repeated")
        log.warning("database away", error=lost, waiting_at_most=wait)
        time.sleep(SERVER_POLL)


def _refuse_sharing(guard: psycopg.Connection, address: Address, wait: Seconds) -> None:
    """Refuse a pooler that gives one process to several sessions: locks would stay there, and keep nobody out.

    One that refuses what a session asks for is known by that already; this one ignores it.
    """
    if _process(guard) == guard.info.backend_pid:
        return  # nothing is between, as a pooler has numbers of its own
    with closing(_wait_connected(address, wait)) as other:
        if any(_process(guard) == _process(other) for _ in range(SHARING_LOOKS)):
            raise MigrationRefused(
                "a pooler in transaction mode is between, where no lock keeps other runners out: "
                "set SERVICE_DATABASE_DIRECT_URL to an address past it"
            )


def _process(connection: psycopg.Connection) -> int:
    with _answering(connection):
        [(process,)] = connection.execute("SELECT pg_backend_pid()")
    return int(process)


def _until_locked(connection: psycopg.Connection, lock: int) -> Iterator[None]:
    """Take a lock; yield after each look that finds another runner there."""
    told = False
    while not _is_locked(connection, lock):
        if not told:
            log.info("waiting for another migration")
            told = True
        yield
        time.sleep(LOCK_POLL)


def _is_locked(connection: psycopg.Connection, lock: int) -> bool:
    with _answering(connection):
        return connection.execute("SELECT pg_try_advisory_lock(%s)", [lock]).fetchone() == (True,)


@contextmanager
def _held(guard: psycopg.Connection, worker: psycopg.Connection) -> Iterator[None]:
    """Cut the worker's line once the guard's is lost, and the lock with it, or nobody answers on the guard's.

    The worker's own silence says nothing, as a migration may take hours. Raises psycopg.OperationalError.
    """
    over, lost = threading.Event(), list[str]()

    def look() -> None:
        while not lost and not over.wait(HELD_POLL):
            try:
                with _answering(guard):
                    guard.execute("SELECT 1")
            except ServerAway:
                lost.append(f"PostgreSQL has not answered for {ANSWER_LIMIT:g} s")
            except psycopg.Error as error:
                lost.append(f"the connection that keeps other runners out was lost: {flat(error)}")
        if lost and not over.is_set():
            _cut(line)

    with _line_of(worker) as line, _line_of(guard) as own:
        looks = threading.Thread(target=look, name="lock of the migrations", daemon=True)
        looks.start()
        try:
            yield
        except (SQLAlchemyError, psycopg.Error) as error:
            if lost:
                raise psycopg.OperationalError(lost[0]) from error
            raise
        finally:
            over.set()
            looks.join(LEAVE_LOOK)
            if looks.is_alive():  # it waits for an answer, which nobody needs any more
                _cut(own)
                looks.join()


def _line_of(connection: psycopg.Connection) -> socket.socket:
    """Return its socket once more, to be closed apart."""
    return socket.socket(fileno=os.dup(connection.fileno()))


def _cut(line: socket.socket) -> None:
    with suppress(OSError):  # one that was reset is cut already
        line.shutdown(socket.SHUT_RDWR)


@contextmanager
def _answering(connection: psycopg.Connection) -> Iterator[None]:
    """Cut the line when what is asked inside has no answer in time: a silent one, as behind a proxy, has no other end.

    Not for migrations, which may take hours. Raises ServerAway.
    """
    with _line_of(connection) as line:
        begun = time.monotonic()
        cut = threading.Timer(ANSWER_LIMIT, _cut, [line])
        cut.start()
        try:
            yield
        except psycopg.OperationalError as error:
            if time.monotonic() - begun < ANSWER_LIMIT:
                raise
            late = f"PostgreSQL let us in and did not answer within {ANSWER_LIMIT:g} s; it may be repeated"
            raise ServerAway(late) from error
        finally:
            cut.cancel()
            cut.join()
