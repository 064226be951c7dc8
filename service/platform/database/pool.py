"""The open connections that no unit uses right now. Lives in the event loop: no locks, no threads."""

from collections import deque

import trio

from service.platform.database.address import Address, PasswordUnreadable
from service.platform.database.line import Line
from service.platform.database.wire import ConnectFailed, connect
from service.platform.errors import DatabaseAway


class _Waiter:
    """Who waits for a line; gets it, or the reason why there is none."""

    __slots__ = ("answer", "answered")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Line | Exception | None = None

    def tell(self, answer: Line | Exception) -> None:
        self.answer = answer
        self.answered.set()


class Pool:
    """Idle lines, the latest used first. How many units there are at once is for `Slots` to say.

    A connection is made in the pool's nursery, so that one whose unit is cancelled meanwhile serves the next: else
    impatient callers would make the server start connection after connection and use none.
    """

    def __init__(self, address: Address, nursery: trio.Nursery) -> None:
        self.address = address
        self.replaced = 0
        self._nursery = nursery
        self._idle: list[Line] = []
        self._waiting: deque[_Waiter] = deque()
        self._connecting = 0
        self._closed = False

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def take(self) -> Line:
        """Return a line that lives, as far as one can tell without a round trip. Raises DatabaseAway."""
        while self._idle:
            line = self._idle.pop()
            if not line.found_dead():
                return line
            line.close()
            self.replaced += 1
        return await self.take_new()

    async def take_new(self) -> Line:
        """Return a line that was just opened. Raises DatabaseAway when there is none within the limit."""
        waiter = _Waiter()
        self._waiting.append(waiter)
        if self._connecting < len(self._waiting):
            self._connecting += 1
            self._nursery.start_soon(self._connect)
        try:
            await waiter.answered.wait()
        except trio.Cancelled:
            if isinstance(waiter.answer, Line):
                self.give(waiter.answer)  # the line came together with the cancel
            raise
        finally:
            if waiter.answer is None:
                self._waiting.remove(waiter)
        if isinstance(waiter.answer, Line):
            return waiter.answer
        raise DatabaseAway("PostgreSQL cannot be reached") from waiter.answer

    async def _connect(self) -> None:
        answer: Line | Exception
        try:
            answer = Line(await connect(self.address.parameters), prepares=self.address.prepares)
        except (ConnectFailed, PasswordUnreadable, OSError) as error:  # OSError: no descriptor left
            answer = error
        finally:
            self._connecting -= 1
        if self._waiting:
            self._waiting.popleft().tell(answer)
        elif isinstance(answer, Line):
            self.give(answer)

    def give(self, line: Line) -> None:
        """Take a line back; one that is not clean is closed."""
        if line.usable and not self._closed:
            self._idle.append(line)
        else:
            line.close()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        while self._waiting:
            self._waiting.popleft().tell(RuntimeError("the database was closed"))
