"""The jobs that a process has claimed and not ended, those of them that wait for a slot, and the room for more.

Quick jobs are claimed ahead of the slots that will be free for them, as many as AHEAD seconds are enough for at the
pace of late: a claim costs as much as several of them. A job that has returned and is only still to be written as done
takes no room.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator

import trio

from service.platform.jobs.running import Running
from service.platform.jobs.store import Claimed

AHEAD = 0.05  # seconds of work that may be claimed ahead
MOST_AHEAD = 20  # times the concurrency; and as many may wait to be written
NEWEST = 0.05  # the newest job's share in the mean


class Held:
    """Times are the event loop's."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.waiting: deque[Running] = deque()
        self._running: dict[int, Running] = {}
        self._returned = 0  # jobs whose function has returned, and that are not yet written as done
        self._mean = AHEAD  # seconds that a job takes, of late
        self._empty = trio.Event()
        self._worth_it = trio.Event()  # another claim is

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Running]:
        return iter(self._running.values())

    def add(self, claimed: Iterable[Claimed], lease: float) -> None:
        for one in claimed:
            running = self._running[one.id] = Running(one, lease)
            self.waiting.append(running)

    def get(self, claimed: Claimed) -> Running | None:
        """Return what is held by this very claim; the same job may have been lost and claimed again."""
        running = self._running.get(claimed.id)
        return running if running is not None and running.claimed is claimed else None

    def note_returned(self) -> None:
        self._returned += 1
        self._tell_changed()

    def drop(self, claimed: Iterable[Claimed], *, returned: int = 0) -> None:
        """Forget what was ended or lost; so many of them had been noted as returned."""
        self._returned -= returned
        for one in claimed:
            if self.get(one) is not None:
                del self._running[one.id]
        self._tell_changed()

    def note_seconds(self, seconds: float) -> None:
        """Let what a job took count for how many are claimed ahead."""
        self._mean += NEWEST * (seconds - self._mean)

    def overdue(self) -> list[Running]:
        now = trio.current_time()
        return [one for one in self if one.is_overdue(now)]

    def count_overdue(self) -> Counter[str]:
        """Return how many of each kind have not ended though their deadline is over: each has a slot for itself."""
        return Counter(one.claimed.kind for one in self.overdue())

    def take_waiting(self) -> list[Running]:
        """Take out all that has not begun."""
        waiting = [*self.waiting]
        self.waiting.clear()
        return waiting

    def take_impatient(self) -> list[Running]:
        """Take out what has waited too long for a slot, or is not ours any more."""
        now = trio.current_time()
        impatient = [one for one in self.waiting if not one.may_begin(now) or one.patient < now]
        for one in impatient:
            self.waiting.remove(one)
        return impatient

    @property
    def room(self) -> int:
        """How many more may be claimed now."""
        return self._room(self._ahead)

    def _room(self, ahead: int) -> int:
        if self._returned > MOST_AHEAD * self.concurrency:
            return 0
        return max(0, self.concurrency + ahead - (len(self._running) - self._returned))

    @property
    def _ahead(self) -> int:
        return int(min(MOST_AHEAD, AHEAD / max(self._mean, 1e-6)) * self.concurrency)

    def _is_worth_it(self) -> bool:
        """Tell whether there is room for one, or for as many as a claim is worth where slots have work meanwhile."""
        ahead = self._ahead
        return self._room(ahead) >= max(1, ahead // 2)

    async def wait_worth_it(self) -> None:
        """Wait until a claim is worth what it costs."""
        if not self._is_worth_it():
            self._worth_it = trio.Event()
            await self._worth_it.wait()

    async def wait_empty(self) -> None:
        while self._running:
            self._empty = trio.Event()
            await self._empty.wait()

    def _tell_changed(self) -> None:
        if not self._running:
            self._empty.set()
        if self._is_worth_it():
            self._worth_it.set()
