"""A terminal whose last row is what is being typed: what comes in goes above it, and the row stays. Or a pipe.

A line editor of the few keys that a chat needs: the terminal's own one cannot be asked what it holds.
"""

import codecs
import math
import os
import re
import shutil
import signal
import termios
import time
import tty
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

import trio

from service.chat.parsing import JOINERS

PROMPT = "> "
DIM, PLAIN = "\x1b[2m", "\x1b[m"
_SEQUENCE = re.compile(r"\x1b+(\[[0-?]*[ -/]*[@-~]|O.|.)?")  # arrows and other keys that this editor does not know
_BEGUN = re.compile(r"\x1b(\[[0-?]*[ -/]*|O)?")  # the first part of one
_NEXT_PART = 0.1  # seconds until what has begun was a key of its own, Escape; the parts of one come together, nearly
_ERASE, _ERASE_WORD, _ERASE_ALL, _END, _STOP = ("\x7f", "\b"), "\x17", "\x15", "\x04", "\x1a"


class Terminal:
    """What is typed on a terminal, and what is shown there."""

    def __init__(self, descriptor: int, waiting: Callable[[], int]) -> None:
        self._descriptor = descriptor
        self._before = termios.tcgetattr(descriptor)
        self._waiting = waiting  # how many lines are written and not stored
        self._typed = ""

    def show(self, line: str) -> None:
        """Print a line above what is being typed."""
        line = printable(line)
        shown = f"{DIM}{line}{PLAIN}" if line.startswith("* ") else line
        print(f"\r\x1b[K{DIM}{time.strftime('%H:%M:%S')}{PLAIN} {shown}")
        self.draw()

    def draw(self) -> None:
        """Write the last row anew: the end of what is typed, as much as fits."""
        waiting = self._waiting()
        prompt = f"({waiting} waiting) {PROMPT}" if waiting else PROMPT
        room = shutil.get_terminal_size().columns - len(prompt) - 1
        print(f"\r\x1b[K{prompt}{_tail(self._typed, room)}", end="", flush=True)

    async def lines(self) -> AsyncIterator[str]:
        """Yield each line when Enter is pressed, until Ctrl-D on an empty one, or the terminal is gone."""
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        begun = ""
        self.draw()
        while True:
            with trio.move_on_after(_NEXT_PART if begun else math.inf) as patience:
                await trio.lowlevel.wait_readable(self._descriptor)
            if patience.cancelled_caught:
                begun = ""
                continue
            try:
                data = os.read(self._descriptor, 65_536)
            except OSError:
                return
            if not data:  # as of one that was hung up, for ever
                return
            text = begun + decode(data)
            start = text.rfind("\x1b")
            begun = text[start:] if start >= 0 and _BEGUN.fullmatch(text, start) else ""
            keys = _SEQUENCE.sub("", text.removesuffix(begun))
            for key in keys:
                if key == _END and not self._typed:
                    print("\r\x1b[K", end="", flush=True)
                    return
                if key in "\r\n":
                    line, self._typed = self._typed, ""
                    yield line
                elif key == _STOP:
                    self._stop()
                else:
                    self._edit(" " if key == "\t" else key)  # pasted, between words
            self.draw()

    @contextmanager
    def unbuffered(self) -> Iterator[None]:
        """Let the terminal hand over each key as it is pressed, without showing it; Ctrl-C still interrupts."""
        self._unbuffer()
        try:
            yield
        finally:
            self._restore()

    def _unbuffer(self) -> None:
        tty.setcbreak(self._descriptor)
        modes = termios.tcgetattr(self._descriptor)
        modes[6][termios.VSUSP] = b"\0"  # a key like others: whoever is stopped by it cannot put things right before
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, modes)

    def _restore(self) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def _stop(self) -> None:
        """Stop, as Ctrl-Z does, until the shell goes on with this: each shell leaves the terminal as it likes it."""
        self._restore()
        os.kill(0, signal.SIGTSTP)  # all that the shell started together, as the terminal itself would
        self._unbuffer()

    def _edit(self, key: str) -> None:
        if key in _ERASE:
            self._typed = self._typed[:-1]
        elif key == _ERASE_WORD:
            self._typed = self._typed.rstrip().rpartition(" ")[0]
        elif key == _ERASE_ALL:
            self._typed = ""
        elif key.isprintable() or key in JOINERS:
            self._typed += key


def printable(line: str) -> str:
    """Return a line that cannot steer a terminal, whoever wrote it."""
    return "".join(c if c.isprintable() or c in JOINERS else " " for c in line)


def _tail(text: str, columns: int) -> str:
    """Return the end of a text, as much as fits; there may be no room at all. Its beginning is not looked at."""
    start = len(text)
    while start and (columns := columns - _width(text[start - 1])) >= 0:
        start -= 1
    return text[start:]


def _width(character: str) -> int:
    """Return about how many columns a character takes."""
    if unicodedata.combining(character) or character in JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


async def lines(descriptor: int) -> AsyncIterator[str]:
    """Yield the lines of a pipe, without making it non-blocking for whoever else has it open."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    while True:
        with suppress(PermissionError):  # a plain file can always be read
            await trio.lowlevel.wait_readable(descriptor)
        data = os.read(descriptor, 65536)
        *whole, rest = (rest + decode(data, not data)).split("\n")
        for line in whole:
            yield line
        if not data:
            yield rest
            return
