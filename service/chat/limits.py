"""When patience with a client ends: too many bad frames in a row, too long beyond its rate. Pure."""

from service.chat.protocol import MAX_STRIKES

FLOOD = 10.0  # seconds beyond the rate before the connection is closed
CALM = 2.0  # seconds without a refusal after which that time counts anew


class Strikes:
    """Counts bad frames in a row."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def miss(self) -> bool:
        """Count a bad frame; True when it was one too many."""
        self._count += 1
        return self._count >= MAX_STRIKES

    def hit(self) -> None:
        self._count = 0


class Patience:
    """Measures how long a client has gone on beyond its rate."""

    __slots__ = ("_last", "_since")

    def __init__(self) -> None:
        self._since = self._last = float("-inf")

    def refuse(self, now: float) -> bool:
        """Note a refusal; True when it is time to end this."""
        if now - self._last > CALM:
            self._since = now
        self._last = now
        return now - self._since >= FLOOD
