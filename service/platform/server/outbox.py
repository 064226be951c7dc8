"""Everything that is written to one socket, in one order.

Theory of operation. An outbox is in one of four states:

    empty     nothing waits. A write goes to the socket at once; what it does not take is appended -> queued
    queued    entries wait, in order. A write is only appended. One task, `_drain`, writes the first entry -> empty
    overflow  queued, and `send_nowait` was refused once (`overflowed`). The caller lets the peer go; it never resumes
    closed    final: by `close`, or by `_give_up` when the peer is gone or too slow. Nothing is written or queued

Who may change them: whoever writes (`push`, `send_nowait`, `send`) moves empty to queued; only `_drain` moves queued to
empty; the connection closes. All of it is plain `def` between two checkpoints, on one thread, so no two writers can
interleave inside a step.

What cannot happen, and why:

- Two entries out of order: while anything waits, every write is appended, and only `_drain` takes from the front.
- Half a frame: an entry whose beginning is on the wire (`_head_begun`) is never dropped, neither to make room nor by
  `discard`. A caller that is cancelled in `send` only stops waiting; its entry stays and is written whole.
- Two drain tasks: `_draining` is set before the task is started and cleared when it ends, with the queue empty.
- A writer that waits for ever: each PIECE of bytes has `write_timeout` seconds. A peer that reads nothing, or a
  trickle, fails the outbox, which wakes all who wait.
- A write to another connection: the descriptor is asked for anew each time, since the number of a closed socket may
  belong to another by then.
"""

import os
from collections.abc import Callable

import trio

PIECE = 65_536


def _nobody(_: object) -> None:
    pass


class TooSlowError(Exception):
    """A member does not read what it is sent: its outbox is full."""


class _Entry:
    __slots__ = ("data", "droppable", "written")

    def __init__(self, data: bytes | memoryview, *, droppable: bool, written: trio.Event | None) -> None:
        self.data = data
        self.droppable = droppable
        self.written = written


class Outbox:
    """Of one connection. `fail` is called once, with a reason, when the peer is gone or reads too slowly."""

    _patience: trio.CancelScope | None = None  # of the task that writes, once there was one

    def __init__(
        self,
        socket: trio.socket.SocketType,
        *,
        start_soon: Callable[[Callable[[], object]], None],
        fail: Callable[[str], None],
        write_timeout: float,
        max_frames: int,
        max_bytes: int,
    ) -> None:
        self._socket = socket
        self._start_soon = start_soon
        self._fail = fail
        self._write_timeout = write_timeout
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._entries: list[_Entry] = []  # short, and mostly empty: a deque takes 700 bytes then
        self._waiting_bytes = 0
        self._head_begun = False
        self._draining = False
        self._closed = False
        self.overflowed = False

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._waiting_bytes

    def send_nowait(self, data: bytes, *, droppable: bool = False) -> None:
        """Write or queue `data`; raises TooSlowError when the queue is full. Plain `def`: nothing can come between.

        To make room, droppable entries that wait go first; a droppable one that finds no room is dropped itself.
        """
        if self._entries:
            if self._is_full(len(data)):
                if droppable:
                    return
                self._drop_droppable()
                if self._is_full(len(data)):
                    self.overflowed = True
                    raise TooSlowError
            self._append(data, droppable=droppable)
        elif not self._closed:
            written = self._write(data)
            if written < len(data):
                self._append_rest(data, written, droppable=droppable)

    def push(self, data: bytes) -> None:
        """Write or queue `data` whatever waits already: for the few frames that a connection's protocol needs."""
        if self._entries:
            self._append(data)
        elif not self._closed:
            written = self._write(data)
            if written < len(data):
                self._append_rest(data, written)

    async def send(self, data: bytes) -> None:
        """Write `data` and return when the socket has taken all of it, or the connection has failed.

        Not a checkpoint while the socket takes everything at once.
        """
        self.push(data)
        await self.wait_empty()

    async def wait_empty(self) -> None:
        """Return when what is waiting now has been taken by the socket, or is given up."""
        if self._entries:
            last = self._entries[-1]
            if last.written is None:
                last.written = trio.Event()
            await last.written.wait()

    def discard(self) -> None:
        """Forget what waits, save the rest of an entry that is partly written."""
        keep = [self._entries.pop(0)] if self._head_begun else []
        self._forget()
        for entry in keep:
            self._entries.append(entry)
            self._waiting_bytes += len(entry.data)

    @property
    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Write nothing any more and let go whoever waits, the task that writes included."""
        self._closed = True
        self._forget()
        self._head_begun = False
        if self._patience is not None:
            self._patience.cancel()

    def forget_owner(self) -> None:
        """Call back nobody any more: the connection is over, and whoever has this has not all of that."""
        self._fail = self._start_soon = _nobody

    def _is_full(self, more: int) -> bool:
        return len(self._entries) >= self._max_frames or self._waiting_bytes + more > self._max_bytes

    def _append(self, data: bytes | memoryview, *, droppable: bool = False) -> None:
        self._entries.append(_Entry(data, droppable=droppable, written=None))
        self._waiting_bytes += len(data)

    def _append_rest(self, data: bytes, written: int, *, droppable: bool = False) -> None:
        if self._closed:
            return
        self._head_begun = written > 0
        self._append(memoryview(data)[written:], droppable=droppable)
        if not self._draining:
            self._draining = True
            self._start_soon(self._drain)

    def _drop_droppable(self) -> None:
        begun = self._entries[0] if self._head_begun else None
        kept = [entry for entry in self._entries if entry is begun or not entry.droppable]
        self._entries = kept
        self._waiting_bytes = sum(len(entry.data) for entry in kept)

    def _forget(self) -> None:
        for entry in self._entries:
            if entry.written is not None:
                entry.written.set()
        self._entries.clear()
        self._waiting_bytes = 0

    def _write(self, data: bytes | memoryview) -> int:
        try:
            # Asked for anew each time: the number of a socket that was closed may belong to another by now.
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:
            self._give_up("gone")
            return 0

    async def _drain(self) -> None:
        try:
            while self._entries:
                with trio.move_on_after(self._write_timeout) as self._patience:
                    await self._write_piece()
                if self._patience.cancelled_caught:
                    self._give_up("write timeout")
        finally:
            self._draining = False

    async def _write_piece(self) -> None:
        left = PIECE
        while self._entries and left > 0:
            try:
                await trio.lowlevel.wait_writable(self._socket)
            except (OSError, trio.ClosedResourceError):
                self._give_up("gone")
            left -= self._flush()

    def _flush(self) -> int:
        """Write what the socket takes now; return the number of bytes."""
        total = 0
        while self._entries:
            entry = self._entries[0]
            written = self._write(entry.data)
            if not self._entries:  # given up
                break
            total += written
            self._waiting_bytes -= written
            if written < len(entry.data):
                if written:
                    self._head_begun = True
                    entry.data = memoryview(entry.data)[written:]
                break
            self._entries.pop(0)
            self._head_begun = False
            if entry.written is not None:
                entry.written.set()
        return total

    def _give_up(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._fail(reason)
