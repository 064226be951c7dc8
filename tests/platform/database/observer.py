"""A second pair of eyes on a server: a connection of the test's own that looks at what the others do."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import trio
import trio.lowlevel
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url

# Sessions of clients on the observed database, but the observer's own.
OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def conninfo(url: str) -> str:
    """Return SQLAlchemy's URL in the form that psycopg takes."""
    where = make_url(url)
    parameters = where.translate_connect_args(username="user", database="dbname")
    return make_conninfo("", **parameters | {name: value for name, value in where.query.items() if name != "options"})


class Observer:
    """Asks the server; blocks, for a millisecond each."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection

    def ask(self, query: str, *values: Any) -> Any:
        row = self.connection.execute(query.encode(), values).fetchone()
        return row[0] if row else None

    def running(self) -> int | None:
        """Return the process that runs a query of ours right now."""
        pid: int | None = self.ask(f"SELECT pid {OTHERS} AND state = 'active' AND position('pg_sleep' in query) > 0")
        return pid

    def idle_in_transaction(self) -> int:
        return int(self.ask(f"SELECT count(*) {OTHERS} AND starts_with(state, 'idle in transaction')"))

    def sessions(self) -> int:
        return int(self.ask(f"SELECT count(*) {OTHERS}"))

    async def wait_running(self) -> int:
        """Return the process of a query that sleeps, once there is one."""
        while (pid := self.running()) is None:
            await trio.sleep(0.001)
        return pid

    async def wait_gone(self) -> float:
        """Return after how many seconds no query sleeps any more."""
        started = time.perf_counter()
        while self.running() is not None:
            await trio.lowlevel.checkpoint()
        return time.perf_counter() - started

    async def kill_running(self, command: Sequence[str]) -> float:
        """Start a client, kill it while its query sleeps, and return for how many seconds that goes on."""
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220  it is killed, not waited for
        try:
            await self.wait_running()
        finally:
            client.kill()
            client.wait()
        return await self.wait_gone()


@contextmanager
def observe(url: str) -> Iterator[Observer]:
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        yield Observer(connection)
