"""One place in a cluster of real processes: killed, drained and started again, each time with a log of its own."""

import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from service.platform.testing.processes import PATIENCE, SERVICE, Process, started


class Place:
    """What runs in it at the moment is `process`; it begins with none."""

    def __init__(self, directory: Path, *arguments: str, command: Sequence[str] = SERVICE, **settings: Any) -> None:
        self.process: Process | None = None
        self._directory = directory
        self._arguments = arguments
        self._command = command
        self.settings = settings
        self._scope = ExitStack()
        self._started = 0

    def launch(self) -> Process:
        """Start the next process, and return before it is ready."""
        self._started += 1
        directory = self._directory / str(self._started)
        directory.mkdir(parents=True)
        run = started(directory, *self._arguments, command=self._command, **self.settings)
        self.process = self._scope.enter_context(run)
        return self.process

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self.process is not None and self.process.process.poll() is None:
            self.process.send(number)

    async def end(self, number: signal.Signals, seconds: float = PATIENCE) -> int:
        """Send a signal that ends the process, and return its exit status once it has gone."""
        assert self.process is not None
        self.send(number)
        return await self.process.wait_end(seconds)

    def close(self) -> None:
        self._scope.close()

    @property
    def logs(self) -> list[Path]:
        return sorted(self._directory.glob("*/*.log"))
