"""LISTEN on a connection of its own, driven by Trio: it runs no queries, comes back after a loss, and says so."""

from collections.abc import AsyncIterator

import psycopg
import structlog
import trio
from psycopg import sql
from psycopg.pq.abc import PGconn

from service.platform.database.address import Address
from service.platform.database.background import Background
from service.platform.database.wire import connect, execute

log = structlog.get_logger(__name__)

# The payloads that came since the last item; None: some may have been missed, look at the tables.
type Wakeup = frozenset[str] | None


class Wakeups(AsyncIterator[Wakeup]):
    """What comes in on a channel. The first item, and the first after each loss of the connection, is None: catch up.

    Payloads that came together are one item, without repeats. What comes while nobody asks waits in the connection.
    """

    def __init__(self, address: Address, channel: str, background: Background) -> None:
        self._address = address
        self._background = background
        self._name = f"listen {channel}"
        self._statement = sql.SQL("LISTEN {}").format(sql.Identifier(channel)).as_string()
        self._pgconn: PGconn | None = None

    async def __anext__(self) -> Wakeup:
        if self._pgconn is None:
            await self._background.keep_running(self._connect, name=self._name)
            return None
        try:
            return await self._wait(self._pgconn)
        except (psycopg.Error, OSError):
            log.warning("listener lost its connection")
            self.close()
            return await self.__anext__()

    async def _wait(self, pgconn: PGconn) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        while not (payloads := _payloads(pgconn)):
            await trio.lowlevel.wait_readable(pgconn.socket)
            pgconn.consume_input()
        return payloads

    async def _connect(self) -> None:
        try:
            pgconn = self._pgconn = await connect(self._address.parameters)
            await execute(pgconn, self._statement)  # from here on nothing falls between
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._pgconn is not None:
            self._pgconn.finish()
            self._pgconn = None


def _payloads(pgconn: PGconn) -> frozenset[str]:
    payloads = set()
    while (notification := pgconn.notifies()) is not None:
        payloads.add(notification.extra.decode())
    return frozenset(payloads)
