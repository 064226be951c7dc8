"""What a process shares with one that serves before or after it. By itself, as in production, it shares nothing."""

import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from service.platform.process.start import ending_signals
from service.platform.server import open_listener


def open_own(_field: str, address: str) -> socket.socket:
    """Open a socket that nobody else has."""
    return open_listener(address)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where sockets come from, by setting and address, and what ends the process.

    `shared`: others accept on the same sockets, so from the drain on this one accepts no more. `takes_over`: another
    one serves until this one is ready, so it answers nobody before.
    """

    open_listener: Callable[[str, str], socket.socket] = open_own
    ends_at: tuple[signal.Signals, ...] = field(default_factory=ending_signals)
    shared: bool = False
    takes_over: bool = False


ALONE = Stage()
