"""Work that holds the event loop for long, one after another, with the loop free as long again after each.

A task that holds the loop is followed by whichever is ready: a hundred that do, of a hundred clients, are one hold a
hundred times as long, in which no probe is answered. A thread would not help, as what holds the loop here is the
interpreter: whoever shares it with a thread gets it back 200 times a second, for one call to the system each time.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

SHARED = 8  # times the processor's time of a hold are waited at most: it was longer where the process was stopped in it


class Turns:
    """The turns of one event loop, in the order in which they are asked for.

    `busy` returns the seconds of a processor that the loop's thread has had.
    """

    def __init__(self, busy: Callable[[], float] = time.thread_time) -> None:
        self._busy = busy
        self._lock = trio.Lock()
        self._free_until = float("-inf")

    @property
    def waiting(self) -> int:
        return self._lock.statistics().tasks_waiting

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a turn, which ends with the block; the next begins after as long again as it held the loop."""
        async with self._lock:
            await trio.sleep_until(self._free_until)
            begun, had = trio.current_time(), self._busy()
            try:
                yield
            finally:
                ended = trio.current_time()
                self._free_until = ended + min(ended - begun, SHARED * (self._busy() - had))
