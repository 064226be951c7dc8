"""Who may use a connection now: a slot for each, in order of arrival, refused at once when the wait would be too long.

Whoever is let in has been promised a slot, and is rather served late than refused late: a late refusal has cost the
client its time and gives it nothing. So the estimate is what refuses. It counts those ahead at the pace of recent
units, and for how long nobody has given a slot back though one was due: a database that stands still is noticed by
that, and not by units that end.
"""

from collections import deque

import trio

from service.platform.errors import Busy

# The newest unit's share in the mean: about the last twenty units count.
NEWEST = 0.1
# What a unit is taken to last before the first has ended, as a part of the longest wait.
FIRST_GUESS = 0.1
# After so many times the longest wait a promise is broken: the database has come to stand still in between.
PATIENCE = 3


class _Turn:
    """A place in the queue for a slot; `granted` is set in the same breath as the event."""

    __slots__ = ("came", "granted")

    def __init__(self) -> None:
        self.came = trio.Event()
        self.granted = False


class Slots:
    """Slots for `size` units at once; a newcomer is let in when it should have to wait for `wait` seconds at most."""

    def __init__(self, size: int, wait: float) -> None:
        self.size = size
        self.wait = wait
        self.used = 0
        self._mean = wait * FIRST_GUESS
        self._last_turn = 0.0  # when a slot was taken or given back
        self._queue: deque[_Turn] = deque()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def expected_wait(self) -> float:
        """Return the seconds that a newcomer would wait: those ahead at the pace of recent units, and the delay."""
        if self.used < self.size:
            return 0.0
        overdue = max(0.0, trio.current_time() - self._last_turn - self._mean)
        return len(self._queue) * self._mean / self.size + overdue

    async def acquire(self) -> None:
        """Take a slot. Raises Busy when none is free in time. No checkpoint when one is free at once."""
        if self.used < self.size:
            self.used += 1
            self._last_turn = trio.current_time()
            return
        expected = self.expected_wait
        if expected > self.wait or not await self._wait_turn():
            raise Busy(f"all {self.size} database connections are in use", retry_after=max(1.0, expected))

    async def _wait_turn(self) -> bool:
        turn = _Turn()
        self._queue.append(turn)
        try:
            with trio.move_on_after(self.wait * PATIENCE):
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
        self._last_turn = trio.current_time()
        if not self._queue:
            self.used -= 1
            return
        turn = self._queue.popleft()
        turn.granted = True
        turn.came.set()
