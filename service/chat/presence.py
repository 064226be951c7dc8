"""How many members a room has over all replicas: each tells the others its own counts now and then. Pure; best effort.

Nothing is stored: a replica that is killed is forgotten when it has not been heard for a while.
"""

from collections.abc import Iterable, Iterator, Mapping

REPEAT = 5.0  # seconds between two tellings of what has not changed
FORGET = 12.0  # seconds without a telling after which a replica's counts are gone
MAX_PAYLOAD = 7_000  # bytes; PostgreSQL takes 7,999
MARK = "@"  # what a telling begins with, and no room's name does


class Presence:
    """One per process; `replica` is its own name among the others."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._told: dict[str, int] = {}
        self._repeat_at = 0.0
        self._heard: dict[str, tuple[float, dict[str, int]]] = {}
        self._shown: dict[str, int] = {}

    def tell(self, counts: Mapping[str, int], now: float) -> list[str]:
        """Return what to tell the others: what has changed, and everything from time to time."""
        repeat = now >= self._repeat_at
        news = {room: count for room, count in counts.items() if repeat or self._told.get(room) != count}
        news |= {room: 0 for room in self._told if room not in counts}
        self._told = dict(counts)
        if repeat:
            self._repeat_at = now + REPEAT
        return [f"{MARK}{self._replica} {part}" for part in _parts(news.items())]

    def take(self, telling: str, now: float) -> None:
        """Take in what another replica tells; nonsense is ignored."""
        replica, _, counts = telling.removeprefix(MARK).partition(" ")
        if replica == self._replica:
            return
        _, known = self._heard.get(replica, (0.0, {}))
        for pair in counts.split(","):
            room, _, count = pair.partition("=")
            if count.isascii() and count.isdecimal() and len(count) < 10:
                known[room] = int(count)
        self._heard[replica] = now, {room: count for room, count in known.items() if count}

    def changes(self, counts: Mapping[str, int], now: float) -> dict[str, int]:
        """Return the totals of this process's rooms that differ from those returned before."""
        self._heard = {replica: heard for replica, heard in self._heard.items() if heard[0] > now - FORGET}
        totals = {
            room: count + sum(heard.get(room, 0) for _, heard in self._heard.values()) for room, count in counts.items()
        }
        changed = {room: total for room, total in totals.items() if self._shown.get(room) != total}
        self._shown = totals
        return changed


def _parts(counts: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Join counts into payloads of a bounded size."""
    part = ""
    for room, count in counts:
        pair = f"{room}={count}"
        if part and len(part) + len(pair) > MAX_PAYLOAD:
            yield part
            part = ""
        part = f"{part},{pair}" if part else pair
    if part:
        yield part
