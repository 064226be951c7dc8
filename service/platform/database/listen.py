"""LISTEN for all who ask, on one connection that runs no queries, comes back after a loss, and says so.

Theory of operation. One task, `Listener.run`, has the connection. It is open while somebody listens, and closed when
the last one leaves. Between two notifications the task waits for the socket; a new listener ends that wait, the task
says LISTEN, and only then tells the newcomer to catch up: what is committed from there on comes as a notification, and
what was committed before is in the tables.

Notifications are handed out as soon as they are read: each listener has a set of payloads that wait for it. One that
does not ask for theirs while MOST of them come in is told to catch up instead, so what waits is bounded.

After a connection is lost another is opened, at once, and then after the pauses of background.py, also where each is
lost as soon as it is there: all are told to catch up once their channels are listened to again. A line that falls
silent and stays open, as behind a proxy, is told from one on which nothing is said by a question every QUIET seconds,
whose answer has its limit.
"""

from collections.abc import AsyncIterator, Callable, Set
from contextlib import AbstractContextManager

import psycopg
import structlog
import trio
from psycopg import sql
from psycopg.pq.abc import PGconn

from service.platform.database.address import Address
from service.platform.database.notify import refuse_channel
from service.platform.database.wire import ANSWER_LIMIT, connect, execute
from service.platform.errors import DatabaseAway

MOST = 10_000  # payloads that wait for one listener
QUIET = 5.0  # seconds between two looks whether the server still answers on the line

log = structlog.get_logger(__name__)

# The payloads that came since the last item; None: some may have been missed, look at the tables.
type Wakeup = frozenset[str] | None


class Wakeups(AsyncIterator[Wakeup]):
    """What comes in on a channel. The first item, and the first after each loss of the connection, is None: catch up.

    Payloads that came together, or while nobody asked, are one item, without repeats. One whose process was killed
    right after its commit never comes: whoever may not miss it looks at the tables from time to time as well.
    """

    def __init__(self, channel: str, *, own: bool) -> None:
        """Raises ValueError for a channel that is not 1 to 63 bytes."""
        refuse_channel(channel)
        self.channel = channel
        self.own = own
        self.listening = False
        self._missed = False
        self._payloads: set[str] = set()
        self._any = trio.Event()

    async def __anext__(self) -> Wakeup:
        await self._any.wait()  # a checkpoint in any case
        self._any = trio.Event()
        missed, payloads = self._missed, frozenset(self._payloads)
        self._missed, self._payloads = False, set()
        return None if missed else payloads

    def tell_missed(self) -> None:
        """Let the next item say that something may have been missed: the payloads do not matter then."""
        self._missed = True
        self._payloads.clear()
        self._any.set()

    def tell(self, payload: str) -> None:
        if not self._missed:
            self._payloads.add(payload)
            self._any.set()
        if len(self._payloads) > MOST:
            self.tell_missed()


class Listener:
    """Who listens to what, and the task that hears it for them."""

    def __init__(
        self, address: Address, own_pids: Set[int], watching: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """`own_pids` are the server's processes whose notifications are this process's own.

        `watching` is around each answer that is waited for, as around a unit: until it has come, nothing is well again.
        """
        self._address = address
        self._own_pids = own_pids
        self._watching = watching
        self._listeners: dict[Wakeups, None] = {}
        self._changed = trio.Event()
        self._waiting: trio.CancelScope | None = None
        self._lost = float("-inf")  # when a connection was lost last

    def add(self, wakeups: Wakeups) -> None:
        self._listeners[wakeups] = None
        self._tell_changed()

    def remove(self, wakeups: Wakeups) -> None:
        del self._listeners[wakeups]
        self._tell_changed()

    def _tell_changed(self) -> None:
        self._changed.set()
        if self._waiting is not None:
            self._waiting.cancel()

    async def run(self) -> None:
        """Hear for ever what the listeners want to hear. Raises what ends the connection: to be run again."""
        while True:
            await self._changed.wait()
            if self._listeners:
                await self._hear()
            else:
                self._changed = trio.Event()

    async def _hear(self) -> None:
        """Have a connection as long as somebody listens."""
        with self._watching():
            pgconn = await connect(self._address.parameters)
        heard: set[str] = set()
        try:
            while self._listeners:
                self._changed = trio.Event()
                with self._watching():
                    await self._follow_soon(pgconn, heard)
                try:
                    await self._wait(pgconn)
                except (psycopg.Error, OSError) as error:
                    log.warning("listener lost its connection")
                    before, self._lost = self._lost, trio.current_time()
                    if self._lost - before < QUIET:  # all who listen would read their tables at each
                        raise DatabaseAway("PostgreSQL ends the listener's connections again and again") from error
                    return  # and another is opened at once
        finally:
            pgconn.finish()
            for one in self._listeners:
                one.listening = False
            self._changed.set()

    async def _follow_soon(self, pgconn: PGconn, heard: set[str]) -> None:
        try:
            with trio.fail_after(ANSWER_LIMIT):
                await self._follow(pgconn, heard)
        except trio.TooSlowError as error:
            raise DatabaseAway(f"PostgreSQL did not answer the listener within {ANSWER_LIMIT:g} s") from error

    async def _follow(self, pgconn: PGconn, heard: set[str]) -> None:
        """Listen to the channels that are wanted now, and to no others; tell newcomers to catch up."""
        wanted = {one.channel for one in self._listeners}
        if wanted == heard:
            await execute(pgconn, "")  # nothing new to say: is anybody there?
        for channel in wanted - heard:
            await execute(pgconn, sql.SQL("LISTEN {}").format(sql.Identifier(channel)).as_string())
        for channel in heard - wanted:
            await execute(pgconn, sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)).as_string())
        heard |= wanted
        heard &= wanted
        for one in self._listeners:
            if one.channel in heard and not one.listening:
                one.listening = True
                one.tell_missed()

    async def _wait(self, pgconn: PGconn) -> None:
        """Hand out what comes in, until who listens has changed, or for QUIET seconds."""
        with trio.move_on_after(QUIET) as self._waiting:
            self._hand_out(pgconn)  # first: who listens may change again and again, during each answer of the server
            while not self._changed.is_set():
                await trio.lowlevel.wait_readable(pgconn.socket)
                pgconn.consume_input()
                self._hand_out(pgconn)
        self._waiting = None

    def _hand_out(self, pgconn: PGconn) -> None:
        while (notification := pgconn.notifies()) is not None:
            is_own = notification.be_pid in self._own_pids
            channel, payload = notification.relname.decode(), notification.extra.decode()
            for one in self._listeners:
                if one.channel == channel and one.listening and (one.own or not is_own):
                    one.tell(payload)
