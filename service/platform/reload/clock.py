"""Trio's time, which stands still at a breakpoint: no deadline passes, and the watchdog sees no hold."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

# Seconds between two looks of the loop at a clock that stands, when the breakpoint is on another thread than the loop.
LOOK = 0.05


class StoppableClock(trio.abc.Clock):
    """A clock for `trio.run`. It may be read from any thread, and is stopped by one at a time."""

    def __init__(self) -> None:
        self._stopped_and_lost: tuple[float | None, float] = None, 0.0  # one attribute, so that no reader sees half

    def start_clock(self) -> None:
        """Do nothing: it runs already."""

    def current_time(self) -> float:
        stopped, lost = self._stopped_and_lost
        return (time.perf_counter() if stopped is None else stopped) - lost

    def deadline_to_sleep_time(self, deadline: float) -> float:
        seconds = deadline - self.current_time()
        return seconds if self._stopped_and_lost[0] is None else max(seconds, LOOK)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let time stand still inside this scope."""
        began, (_, lost) = time.perf_counter(), self._stopped_and_lost
        self._stopped_and_lost = began, lost
        try:
            yield
        finally:
            self._stopped_and_lost = None, lost + time.perf_counter() - began
