"""Where the process stands in its life. Probes read it, sockets wait on it; only main moves it.

    starting -> ready -> draining (everything is still accepted) -> leaving (websockets are being closed)

Holds no clock and no I/O.
"""

import enum

import trio


class Phase(enum.StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    LEAVING = "leaving"


class Lifecycle:
    """One per process. Phases only move forward; a call that would move back is ignored."""

    def __init__(self) -> None:
        self._phase = Phase.STARTING
        self._opened = False
        self._draining = trio.Event()
        self._leaving = trio.Event()

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def ready(self) -> bool:
        return self._phase is Phase.READY

    @property
    def opened(self) -> bool:
        """True once it was ready, also when it is no more."""
        return self._opened

    @property
    def draining(self) -> bool:
        """True from the first signal on: the process is going away, though it may still accept."""
        return self._draining.is_set()

    @property
    def leaving(self) -> bool:
        """True once new websockets are refused and the open ones are being closed."""
        return self._leaving.is_set()

    def mark_ready(self) -> None:
        if self._phase is Phase.STARTING:
            self._phase = Phase.READY
            self._opened = True

    def start_draining(self) -> None:
        if not self.draining:
            self._phase = Phase.DRAINING
            self._draining.set()

    def start_leaving(self) -> None:
        self.start_draining()
        if not self.leaving:
            self._phase = Phase.LEAVING
            self._leaving.set()

    async def wait_draining(self) -> None:
        await self._draining.wait()

    async def wait_leaving(self) -> None:
        await self._leaving.wait()
