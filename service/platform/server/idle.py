"""Connections that are kept while nothing is asked of them: one task lets all of them go when their time is over.

A deadline of each would be moved twice a request, which Trio does in a heap of all deadlines: a twentieth of a small
GET. All are kept equally long, so that who has been idle longest is first in one row, and goes first.
"""

from collections import OrderedDict
from typing import Protocol

import trio


class Kept(Protocol):
    """A connection."""

    def end_idle(self) -> None:
        """Close."""


class IdleConnections:
    """Of one serve call."""

    def __init__(self, seconds: float) -> None:
        """Keep each for so many seconds."""
        self._seconds = seconds
        self._until: OrderedDict[Kept, float] = OrderedDict()

    def add(self, connection: Kept) -> None:
        """Begin to count its time, anew if it is here already."""
        self._until[connection] = trio.current_time() + self._seconds
        self._until.move_to_end(connection)

    def discard(self, connection: Kept) -> None:
        self._until.pop(connection, None)

    async def watch(self) -> None:
        """Let go whoever's time is over, until cancelled."""
        while True:
            first = next(iter(self._until.values()), trio.current_time() + self._seconds)  # whoever comes is later
            await trio.sleep_until(first)
            now = trio.current_time()
            while self._until and next(iter(self._until.values())) <= now:
                self._until.popitem(last=False)[0].end_idle()
