"""Who knocks is let in before anybody who came with a crowd is served.

The event loop accepts one connection in each of its turns, and serves in the same turn whatever has been asked
meanwhile. Of 500 clients who come at one instant the last would be accepted when all the others have been served or
refused, and a probe that comes with them waits as long. So a connection's first request waits while others wait to be
accepted, and nothing is made for it before that; then they go on a few in each turn. Probes are answered ahead of this.
"""

import ctypes
import select
import socket
import struct
import sys
from contextlib import suppress

import trio

# Requests that go on in one turn of the loop: as long as that takes, nobody is accepted.
GROUP = 16
# A first request waits this long at most: a crowd that never ends must not keep everybody waiting.
PATIENCE = 0.25
# Seconds that a handshake on its way may take to end, once no further one begins.
HANDSHAKE = 0.1
_SO_ATTACH_FILTER = 26  # Linux's, which the standard library does not name
# A classic BPF program, given a packet from its TCP header on: code, jumps if true and if false, operand.
_NO_BEGINNINGS = struct.pack("HBBI", 0x30, 0, 0, 13)  # load the flags
_NO_BEGINNINGS += struct.pack("HBBI", 0x54, 0, 0, 0x12)  # of which SYN and ACK
_NO_BEGINNINGS += struct.pack("HBBI", 0x15, 0, 1, 0x02)  # SYN alone begins a connection
_NO_BEGINNINGS += struct.pack("HBBI", 0x06, 0, 0, 0)  # drop it
_NO_BEGINNINGS += struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF)  # keep anything else


class Doorway:
    """Of one listener."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._waiting = trio.lowlevel.ParkingLot()

    async def pass_through(self) -> None:
        """Return once nobody waits to be accepted; at once, and no checkpoint, when that is so."""
        if not self._is_crowded():
            return
        try:
            if self._waiting:
                await self._waiting.park()
            else:
                await self._wait_first()
        finally:
            self._waiting.unpark()  # also when whoever waited has gone: each lets the next go on

    async def _wait_first(self) -> None:
        """Wait, and keep the time for those who come to wait behind."""
        with trio.move_on_after(PATIENCE) as patience:
            await self._waiting.park()
        if patience.cancelled_caught:
            self._waiting.unpark(count=GROUP)

    async def let_in_last(self) -> None:
        """Return once nobody waits to be accepted, nor will: who then does is reset, his request sent.

        Nobody else is answered meanwhile: they ask again a second later and are refused, after which it is safe to try
        elsewhere. Where the kernel cannot be told so, it still takes one more, which may be reset.
        """
        if _take_no_more(self._listener):
            await trio.sleep(HANDSHAKE)
        else:
            self._listener.listen(0)
        while self._is_crowded():  # noqa: ASYNC110  the kernel has no event for it
            await trio.lowlevel.checkpoint()  # one is accepted in each turn

    def notice(self) -> None:
        """Let those go on who wait, if the connection that was just accepted is the last."""
        if self._waiting and not self._is_crowded():
            self._waiting.unpark(count=GROUP)

    def _is_crowded(self) -> bool:
        if self._listener.fileno() < 0:  # it is closed: nobody will come, and its number may be another's
            return False
        return any(found & select.POLLIN for _, found in self._poll.poll(0))


def _take_no_more(listener: socket.socket) -> bool:
    """Have the kernel drop what would begin a connection, while it goes on with what has begun; False if it cannot."""
    if sys.platform == "linux":
        program = ctypes.create_string_buffer(_NO_BEGINNINGS, len(_NO_BEGINNINGS))
        with suppress(OSError):  # a kernel without, or a sandbox's own
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 5, ctypes.addressof(program)))
            return True
    return False
