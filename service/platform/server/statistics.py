"""What the server counts about itself: plain numbers of one process, read by whoever exports them."""

from collections import Counter
from dataclasses import dataclass, field

from wsproto.frame_protocol import CloseReason

# Reasons that alerts count.
FULL_HOUSE, NO_DESCRIPTORS = "full house", "descriptors"


@dataclass(slots=True)
class ServerStatistics:
    """One per process, shared by its listeners. Counters only rise; `*_open` and `requests_in_flight` are gauges."""

    connections_open: int = 0
    connection_errors: Counter[str] = field(default_factory=Counter)  # by the exception's class: what the barrier held
    dropped: Counter[str] = field(default_factory=Counter)  # connections let go by the server, by reason
    application_errors: int = 0  # exceptions that left the framework
    requests_in_flight: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # ahead of the framework, by reason
    websockets_open: int = 0
    closes: Counter[str] = field(default_factory=Counter)  # websockets closed, by code

    @property
    def write_timeouts(self) -> int:
        """Connections dropped because the peer did not read in time."""
        return self.dropped["write timeout"]

    def count_close(self, code: int, *, by_peer: bool) -> None:
        """Count by the code, which we say or RFC 6455 knows; a peer may have any of thousands of its own: `other`."""
        self.closes["other" if by_peer and code not in CloseReason else str(int(code))] += 1
