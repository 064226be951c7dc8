"""What is known about the database now: reachable, and with which schema. One task, one connection outside the pool."""

import contextlib
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace

import psycopg
import structlog
import trio
from psycopg.pq.abc import PGconn

from service.platform.database.address import Address, PasswordUnreadable
from service.platform.database.redaction import flat
from service.platform.database.schema import CodeSchema, SchemaState, decide, explain
from service.platform.database.session import find_unfit
from service.platform.database.state import State, read_state
from service.platform.database.wire import ConnectFailed, connect, why_no_writes
from service.platform.looks import SharedLook

INTERVAL = 2.0  # seconds between two looks
LOOK_LIMIT = 1.0
CONNECT_SHARE = 0.8  # of it, so that a connection to the last of several hosts has time for its answer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Condition:
    """What the last look found. While the database cannot be reached, the schema is the last one seen."""

    reachable: bool = False
    schema: SchemaState | None = None
    revision: str | None = None
    serves_from: str | None = None
    applied: Set[str] | None = None
    standby: bool = False  # it takes no writes
    head: str | None = None
    error: str = "not looked yet"
    looked: float = float("-inf")  # on the monotonic clock
    duration: float = 0.0  # seconds that the look took

    @property
    def age(self) -> float:
        """Return the seconds since the look."""
        return time.monotonic() - self.looked

    @property
    def served(self) -> bool:
        """True when the last schema seen is one that this code serves."""
        return self.schema is not None and self.schema.served


class Watch:
    """Looks every INTERVAL, and when asked; one look at a time."""

    def __init__(
        self, address: Address, code: CodeSchema, limits: Mapping[str, str], note_primary: Callable[[bool], None]
    ) -> None:
        """`note_primary` hears of each look that reached a server whether that one takes writes.

        `limits` are those that a session should have: it is told when one has others.
        """
        self._note_primary = note_primary
        self.condition = Condition(head=code.head)
        self._address = address
        self._code = code
        self._limits = limits
        self._unfit: list[str] = []
        self._pgconn: PGconn | None = None
        self._looks = SharedLook(self._look)
        self._looked = trio.Event()

    async def run(self) -> None:
        """Look for ever; the connection is closed when this is cancelled."""
        try:
            while True:
                await self.look()
                await trio.sleep(INTERVAL)
        finally:
            self._close()

    async def look(self) -> Condition:
        """Look now, for at most LOOK_LIMIT, and return what was found. Who comes during a look shares the next one."""
        await self._looks.wait()
        return self.condition

    async def wait_served(self) -> None:
        """Return once a schema was seen that this code serves."""
        while not self.condition.served:
            await self._looked.wait()

    async def _look(self) -> None:
        started = time.monotonic()
        found = replace(self.condition, reachable=False, error=f"no answer within {LOOK_LIMIT:g} s")
        with trio.move_on_after(LOOK_LIMIT):
            found = await self._ask()
        if not found.reachable:
            self._close()
        now = time.monotonic()
        self._publish(replace(found, looked=now, duration=now - started))

    async def _ask(self) -> Condition:
        try:
            recorded = await self._select_state()
        except (ConnectFailed, PasswordUnreadable, psycopg.Error, OSError) as error:
            return replace(self.condition, reachable=False, error=flat(error))
        schema = decide(self._code, *recorded)
        why = why_no_writes(self._pgconn) if self._pgconn is not None else ""
        self._note_primary(not why)
        return Condition(True, schema, *recorded, bool(why), self._code.head, error=why)

    async def _select_state(self) -> State:
        if self._pgconn is not None:
            with contextlib.suppress(psycopg.OperationalError):  # the server ended it meanwhile: that is no outage
                state = await read_state(self._pgconn)
                return await self._look_for_primary(state) if why_no_writes(self._pgconn) else state
            self._close()
        self._pgconn = await connect(self._address.parameters, within=CONNECT_SHARE * LOOK_LIMIT)
        await self._tell_unfit(self._pgconn)
        return await read_state(self._pgconn)

    async def _tell_unfit(self, pgconn: PGconn) -> None:
        """Say what is wrong with our sessions, once, and again when it changes."""
        before, self._unfit = self._unfit, await find_unfit(pgconn, self._limits)
        if self._unfit and self._unfit != before:
            log.warning("database sessions are not as they should be", found="; ".join(self._unfit))

    async def _look_for_primary(self, state: State) -> State:
        """Ask over a new connection, as there may be a primary by now; when there is none at all, keep the answer."""
        pgconn = None
        with contextlib.suppress(ConnectFailed, PasswordUnreadable):
            pgconn = await connect(self._address.parameters, within=LOOK_LIMIT / 2)
        if pgconn is None:
            return state
        self._close()
        self._pgconn = pgconn
        return await read_state(pgconn)

    def _publish(self, condition: Condition) -> None:
        before, self.condition = self.condition, condition
        _log_change(self._code, before, condition)
        self._looked.set()
        self._looked = trio.Event()

    def _close(self) -> None:
        if self._pgconn is not None:
            self._pgconn.finish()
            self._pgconn = None


def _log_change(code: CodeSchema, before: Condition, now: Condition) -> None:
    if not now.reachable and (before.reachable or now.error != before.error):
        log.warning("database away", error=now.error)
    elif now.reachable and not before.reachable:
        log.info("database reached", seconds=round(now.duration, 3))
    if now.standby and not before.standby:
        log.warning("database takes no writes", error=now.error)
    elif before.standby and now.reachable and not now.standby:
        log.info("database takes writes again")
    if now.schema is not before.schema or now.revision != before.revision:
        tell = log.info if now.served else log.warning
        tell("schema seen", state=str(now.schema), meaning=explain(code, now.revision, now.serves_from, now.applied))
