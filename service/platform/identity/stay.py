"""How long a websocket may stay: it outlives the request that proved who asks, and so must end by itself.

The application cancels its handler when the moment has come, and closes with 4401. A handler that has last words waits
for the moment itself (`wait_over`) and then has LAST_WORDS seconds before that.
"""

import math
from collections.abc import Callable

import trio

SIGNED_OUT = 4401  # the close code: sign in again, or come back with another token
EXPIRED = "the token has expired"
LAST_WORDS = 2.0  # seconds


def _nothing(*_: object) -> None:
    pass


class Stay:
    """Of one websocket. `scope` is around its handler."""

    __slots__ = ("_grace", "_limited", "_see_off", "_until", "on_gone", "reason", "scope")

    def __init__(self, see_off: Callable[[float], object] = _nothing) -> None:
        """`see_off` is told Trio's time until which the last of an end may wait, once it ends with many others."""
        self._see_off = see_off
        self.scope = trio.CancelScope()
        self.reason = EXPIRED
        self.on_gone: Callable[[], object] = _nothing  # called when the websocket is gone
        self._until = math.inf
        self._grace = 0.0
        self._limited: trio.Event | None = None  # of whoever waits for the end, which may have come nearer

    @property
    def over(self) -> bool:
        """Whether the websocket has to end, or had to."""
        return trio.current_time() >= self._until

    def limit(self, seconds: float) -> None:
        """Let it end in so many seconds, unless that was sooner anyway."""
        self._until = min(self._until, trio.current_time() + seconds)
        self.scope.deadline = self._until + self._grace
        if self._limited is not None:
            self._limited.set()

    async def wait_over(self) -> str:
        """Return why the websocket has to end, once it has to; its handler then has its last words."""
        self._grace = LAST_WORDS
        self.scope.deadline = self._until + self._grace
        while True:
            if self._limited is None or self._limited.is_set():
                self._limited = trio.Event()
            with trio.CancelScope(deadline=self._until):
                await self._limited.wait()
            if self.over:
                return self.reason

    def leave(self) -> None:
        """It is gone; nobody is called any more."""
        self.on_gone()
        self.on_gone = self._see_off = _nothing

    def end(self, reason: str, *, seen_off_at: float) -> None:
        """Let it end now; its peer's answer may wait until a moment of Trio's time."""
        self.reason = reason
        self._see_off(seen_off_at)
        self.limit(0)
