"""Standard error for a process that must not wait for its reader: a log collector that stands still stops no request.

A write to a pipe that is full waits until somebody reads, and with it the event loop: requests, heartbeats, the drain.
So what finds no room is kept, MOST_KEPT of it or one longer line, and a thread that lives only that long gives it on.
Beyond that lines are dropped and counted until all that was kept is given; then the log says how many are missing. It
says that, too, of what a full disk did not take, once there is room; what was cut off there ends its line, so that the
next one is whole.
"""

import atexit
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

MOST_KEPT = 1 << 20  # bytes: some thousand lines
ROOM = select.PIPE_BUF  # bytes for which a pipe that poll finds writable has room (POSIX, `write`)
PAUSE = 0.01  # seconds, for a terminal that poll finds writable and that takes nothing


class Unheld(io.TextIOBase):
    """Writes text to where `stream` does, and never waits. Raises OSError as any other: when the disk is full.

    `tell_lost` is called with the number of lines that were dropped, from any thread, when there is room again.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, stream: TextIO, tell_lost: Callable[[int], object]) -> None:
        self._stream = stream  # kept open
        self._descriptor = stream.fileno()
        self._tell_lost = tell_lost
        self._room = select.poll()
        self._room.register(self._descriptor, select.POLLOUT)
        self._lock = threading.RLock()  # a signal's handler may come in between and write, too
        self._kept = bytearray()  # while there is any, only the thread writes
        self._thread: threading.Thread | None = None
        self._untold = 0
        self._untaken = 0  # lines that a full disk did not take, and that were not told yet
        self._cut = False  # the latest of them was begun
        self.lost = 0  # lines in all, also those that a full disk did not take
        atexit.register(self._finish)

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        data = text.encode(self.encoding, self.errors)
        with self._lock:
            if self._untold or (self._kept and len(self._kept) + len(data) > MOST_KEPT):
                self._untold += text.count("\n")
                self.lost += text.count("\n")
            else:
                self._kept += data if self._kept else self._not_taken(data)
            if self._kept and self._thread is None:
                self._start()
            untaken, self._untaken = self._untaken, 0
        if untaken:
            self._tell_lost(untaken)
            if self._untaken:  # as that was not taken, either
                self._untaken += untaken
        return len(text)

    def _not_taken(self, data: bytes) -> bytes:
        """Write what there is room for, and return the rest."""
        rest = data
        try:
            if self._cut:
                os.write(self._descriptor, b"\n")
                self._cut = False
            while rest and self._room.poll(0):
                rest = rest[os.write(self._descriptor, rest[:ROOM]) :]
        except BlockingIOError:
            pass
        except OSError:
            self._cut = self._cut or data[: len(data) - len(rest)].rpartition(b"\n")[2] != b""
            self._untaken += rest.count(b"\n")
            self.lost += rest.count(b"\n")
            raise
        return rest

    def _start(self) -> None:
        thread = threading.Thread(target=self._give_on, name="standard error", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # of the interpreter: a limit of processes, or of memory; the next line tries again
            return
        self._thread = thread

    def _finish(self) -> None:
        """At exit, which waits for a second at most: let the last lines out."""
        thread = self._thread  # which forgets itself when it is done
        if thread is not None:
            thread.join()

    # on the thread

    def _give_on(self) -> None:
        more = True
        while more:
            self._room.poll()
            try:
                given = os.write(self._descriptor, self._kept[:ROOM])
            except BlockingIOError:
                time.sleep(PAUSE)
                continue
            except OSError:
                with self._lock:
                    given = len(self._kept)  # to nobody
                    self.lost += self._kept.count(b"\n")
            with self._lock:
                del self._kept[:given]
                more = bool(self._kept)  # looked at here alone: what comes from now on has a thread of its own
                if not more:
                    self._thread, lost, self._untold = None, self._untold, 0
        if lost:
            self._tell_lost(lost)


def lost_lines() -> int:
    """Return how many lines this process could not give to whoever reads its standard error."""
    return sys.stderr.lost if isinstance(sys.stderr, Unheld) else 0
