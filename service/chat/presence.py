"""How many members a room has over all replicas: each tells the others its own counts now and then. Pure; best effort.

Nothing is stored, and a telling may be lost: what a replica has not repeated for a while is forgotten.
"""

from collections.abc import Iterable, Iterator, Mapping

REPEAT = 5.0  # seconds between two tellings of what has not changed
FORGET = 12.0  # seconds after which a count that was not told again is gone
MAX_PAYLOAD = 7_000  # bytes; PostgreSQL takes 7,999
MARK = "@"  # what a telling begins with, and no room's name does


class Presence:
    """One per process; `replica` is its own name among the others."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._told: dict[str, int] = {}
        self._repeat_at = 0.0
        self._heard: dict[str, dict[str, tuple[float, int]]] = {}  # by replica and room: when, and how many
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
        known = self._heard.setdefault(replica, {})
        for pair in counts.split(","):
            room, _, count = pair.partition("=")
            if count.isascii() and count.isdecimal() and len(count) < 10:
                known[room] = now, int(count)

    def changes(self, counts: Mapping[str, int], now: float) -> dict[str, int]:
        """Return the totals of this process's rooms that differ from those returned before."""
        for replica, known in tuple(self._heard.items()):
            fresh = {room: told for room, told in known.items() if told[0] > now - FORGET}
            self._heard[replica] = fresh
            if not fresh:
                del self._heard[replica]
        others = self._heard.values()
        totals = {
            room: count + sum(known[room][1] for known in others if room in known) for room, count in counts.items()
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
