"""When patience with a client's frames ends. Pure."""

from service.chat.protocol import MAX_STRIKES


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
