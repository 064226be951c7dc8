"""The open connections that no unit uses right now. Lives in the event loop: no locks, no threads.

Theory of operation. A connection is connecting, idle, out, or closed:

    connecting -> out      the one who has waited longest gets it
    connecting -> idle     nobody waits any more: their units were cancelled, or were served by others
    idle       -> out      `take`: the one used last, so that those in excess grow old and are seen to be dead
    out        -> idle     `give`: the driver knows of no fault, and no transaction is open
    any        -> closed   not clean, found dead, or it leads to a standby while there is a primary
    idle       -> closed   another fell silent that was heard from later (`note_silence`): it may be as dead

How many are out is not decided here: `Slots` lets no more units in than there may be connections, and each takes one
at a time. So idle, out and connecting together stay at that number, save for one that replaces another at this moment.

Who may change what: the event loop alone, in plain functions. While a connection is out it belongs to its unit, that
is to one thread, and the pool does not touch it: `pooled.py` names the two that may be used from elsewhere.

What cannot happen, and why.
- One connection out twice: it leaves `_idle`, or a waiter's answer, in the same breath in which it is returned.
- A connection that is lost when its taker is cancelled: a waiter that has its answer gives it back (`take_new`), one
  that has none leaves the queue, and what was being opened for it goes to the next, or becomes idle.
- A waiter that is forgotten: `_connecting` is at least the number that wait, or one more is begun; each, whether it
  succeeds or fails, answers one.
- A read of a standby after a write has reached the primary: whoever finds where new connections lead, a look or a new
  connection, says so (`note_primary`), and the idle ones to a standby are closed there and then, the others at `give`.
- A connection that outlives the pool: once closed, `give` closes.
"""

from collections import deque
from collections.abc import Sequence

import psycopg
import trio

from service.platform.database.address import Address, PasswordUnreadable
from service.platform.database.pooled import PooledConnection
from service.platform.database.wire import ConnectFailed, connect
from service.platform.errors import DatabaseAway

LOOK_FOR_PRIMARY = 0.5  # seconds between two connections that are opened only to find out whether there is a primary


class _ConnectionWaiter:
    """Who waits for a connection; gets it, or the reason why there is none."""

    __slots__ = ("answer", "answered")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: PooledConnection | Exception | None = None

    def tell(self, answer: PooledConnection | Exception) -> None:
        self.answer = answer
        self.answered.set()


class Pool:
    """Idle connections, the latest used first. How many units there are at once is for `Slots` to say.

    A connection is made in the pool's nursery, so that one whose unit is cancelled meanwhile serves the next: else
    impatient callers would make the server start connection after connection and use none.
    """

    def __init__(self, address: Address, nursery: trio.Nursery) -> None:
        self.address = address
        self.replaced = 0
        self.pids: set[int] = set()  # of the server's processes that are ours
        self._nursery = nursery
        self._idle: list[PooledConnection] = []
        self._waiting: deque[_ConnectionWaiter] = deque()
        self._connecting = 0
        self._closed = False
        self._primary = True  # whether the latest connection that was opened leads to a primary
        self._looked_for_primary = float("-inf")

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def take(self) -> PooledConnection:
        """Return a connection that lives, as far as one can tell without a round trip. Raises DatabaseAway."""
        while self._idle:
            pooled = self._idle.pop()
            if not pooled.found_dead() and not self._outdated(pooled):
                return pooled
            pooled.close()
            self.replaced += 1
        return await self.take_new()

    def note_primary(self, primary: bool) -> None:
        """Take notice of where new connections lead now: where there is a primary, those to a standby are replaced."""
        self._primary = primary
        self._replace([pooled for pooled in self._idle if self._outdated(pooled)])

    def note_silence(self, silent: PooledConnection) -> None:
        """Close those that were not heard from since the silent one was: each would cost a unit its deadline in turn.

        What ends one line in silence, as a proxy that loses its server, has often ended all that were open then.
        """
        self._replace([pooled for pooled in self._idle if pooled.heard <= silent.heard])

    def _replace(self, some: Sequence[PooledConnection]) -> None:
        for pooled in some:
            self._idle.remove(pooled)
            pooled.close()
            self.replaced += 1

    def replaces_standby(self, pooled: PooledConnection) -> bool:
        """Close a connection that was just given back, as it met a standby; False when one was closed just now.

        So writes find a new primary at once, and do not make a standby start a process for each of them meanwhile.
        """
        now = trio.current_time()
        if now - self._looked_for_primary < LOOK_FOR_PRIMARY:
            return False
        self._looked_for_primary = now
        if pooled in self._idle:
            self._idle.remove(pooled)
            pooled.close()
        return True

    def _outdated(self, pooled: PooledConnection) -> bool:
        return self._primary and pooled.standby

    async def take_new(self) -> PooledConnection:
        """Return a connection that was just opened. Raises DatabaseAway when there is none within the limit."""
        waiter = _ConnectionWaiter()
        self._waiting.append(waiter)
        if self._connecting < len(self._waiting):
            self._connecting += 1
            self._nursery.start_soon(self._connect)
        try:
            await waiter.answered.wait()
        except trio.Cancelled:
            if isinstance(waiter.answer, PooledConnection):
                self.give(waiter.answer)  # the connection came together with the cancel
            raise
        finally:
            if waiter.answer is None:
                self._waiting.remove(waiter)
        if isinstance(waiter.answer, PooledConnection):
            return waiter.answer
        raise DatabaseAway("PostgreSQL cannot be reached") from waiter.answer

    async def _connect(self) -> None:
        answer: PooledConnection | Exception
        try:
            pgconn = await connect(self.address.parameters)
            answer = PooledConnection(pgconn, prepares=self.address.prepares, open_pids=self.pids)
            self.note_primary(not answer.standby)
        except (ConnectFailed, PasswordUnreadable, psycopg.Error, OSError) as error:  # OSError: no descriptor left
            answer = error.with_traceback(None)  # this frame has the answer: it would keep it, and the connection
        finally:
            self._connecting -= 1
        if self._waiting:
            self._waiting.popleft().tell(answer)
        elif isinstance(answer, PooledConnection):
            self.give(answer)

    def give(self, pooled: PooledConnection) -> None:
        """Take a connection back; one that is not clean is closed."""
        if pooled.usable and not self._closed and not self._outdated(pooled):
            pooled.heard = trio.current_time()
            self._idle.append(pooled)
        else:
            pooled.close()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        while self._waiting:
            self._waiting.popleft().tell(RuntimeError("the database was closed"))
