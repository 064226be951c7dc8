"""A program in a terminal of its own: what is typed, what is shown, and Ctrl-C, which reaches all that run in it."""

import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from service.platform.testing.processes import PATIENCE

CTRL_C = b"\x03"
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours, and what a line editor asks of a terminal


class Terminal:
    """A pseudo-terminal whose session a process leads."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int, terminal: int) -> None:
        self.process = process
        self.shown = ""
        self._controller = controller
        self._terminal = terminal

    def modes(self) -> list[Any]:
        """Return how the terminal is set: its echo, for one."""
        return termios.tcgetattr(self._terminal)

    def hang_up(self) -> None:
        """Be gone, as a window that is closed."""
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, self._controller)
        os.close(nothing)

    async def type(self, keys: bytes) -> None:
        await trio.lowlevel.wait_writable(self._controller)
        os.write(self._controller, keys)

    async def wait_shown(self, words: str) -> str:
        """Wait until the words are shown after what was waited for before; return what was shown until then."""
        with trio.fail_after(PATIENCE):
            while words not in self.shown:
                await trio.lowlevel.wait_readable(self._controller)
                self._read()
        before, _, self.shown = self.shown.partition(words)
        return before

    async def wait_end(self) -> int:
        with trio.fail_after(PATIENCE):
            while (code := self.process.poll()) is None:
                await self._take()
                await trio.sleep(0.02)
        await self._take()
        return code

    async def _take(self) -> None:
        """Read what is shown meanwhile: a full terminal would stop whoever writes to it."""
        with trio.move_on_after(0.01):
            while True:
                await trio.lowlevel.wait_readable(self._controller)
                self._read()

    def _read(self) -> None:
        read = os.read(self._controller, 1 << 16).decode(errors="replace")
        self.shown = CODES.sub("", self.shown + read)  # a code may have come in two parts


def _take_terminal() -> None:
    """Have the terminal for one's own, as the first that is opened is, and signals as a login shell has them."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # a suite in the background, or under nohup, ignores some
    os.close(os.open(os.ttyname(1), os.O_RDWR))


@contextmanager
def open_terminal(command: Sequence[str], directory: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """Run a program as a person does, in the foreground of a terminal."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509
    )
    try:
        yield Terminal(process, controller, terminal)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        os.close(controller)
        os.close(terminal)
