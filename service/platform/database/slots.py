"""Who may use a connection now: a slot for each, in order of arrival, refused at once when the wait is hopeless."""

from collections import deque

import trio

from service.platform.errors import Busy

# The newest unit's share in the mean: about the last twenty units count.
NEWEST = 0.1


class _Turn:
    """A place in the queue for a slot; `granted` is set in the same breath as the event."""

    __slots__ = ("came", "granted")

    def __init__(self) -> None:
        self.came = trio.Event()
        self.granted = False


class Slots:
    """Slots for `size` units at once; a newcomer waits at most `wait` seconds, or not at all when that is hopeless."""

    def __init__(self, size: int, wait: float) -> None:
        self.size = size
        self.wait = wait
        self.used = 0
        self._mean = 0.0
        self._queue: deque[_Turn] = deque()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def expected_wait(self) -> float:
        """Return how long a newcomer would wait, in seconds: those ahead, at the pace of recent units."""
        return len(self._queue) * self._mean / self.size

    async def acquire(self) -> None:
        """Take a slot. Raises Busy when none is free in time. No checkpoint when one is free at once."""
        if self.used < self.size:
            self.used += 1
            return
        expected = self.expected_wait
        if expected > self.wait or not await self._wait_turn():
            raise Busy(f"all {self.size} database connections are in use", retry_after=max(1.0, expected))

    async def _wait_turn(self) -> bool:
        turn = _Turn()
        self._queue.append(turn)
        try:
            with trio.move_on_after(self.wait):
                await turn.came.wait()
        except BaseException:
            if turn.granted:
                self._pass_on()  # the slot came together with the cancel
            raise
        finally:
            if not turn.granted:
                self._queue.remove(turn)
        return turn.granted

    def release(self, held: float) -> None:
        """Give a slot back that was held for that many seconds."""
        self._mean += NEWEST * (held - self._mean)
        self._pass_on()

    def _pass_on(self) -> None:
        if not self._queue:
            self.used -= 1
            return
        turn = self._queue.popleft()
        turn.granted = True
        turn.came.set()
