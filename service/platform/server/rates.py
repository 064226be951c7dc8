"""How much one connection, and one client address, may ask for, by Trio's clock."""

import trio

from service.platform.server.address import subscriber

BURST_SECONDS = 2.0


class TokenBucket:
    """`rate` tokens a second, of which at most two seconds' worth (and never less than one) are saved up."""

    __slots__ = ("_capacity", "_rate", "_since", "_tokens")

    def __init__(self, rate: float, *, now: float) -> None:
        """Start full; a rate of 0 is no limit."""
        self._rate = rate
        self._capacity = self._tokens = max(1.0, rate * BURST_SECONDS)
        self._since = now

    def take(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        if self._rate == 0:
            return 0
        self._tokens = min(self._capacity, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0


class RateLimits:
    """A bucket for each client address. One that has been left alone until its bucket was full again is forgotten."""

    def __init__(self, rate: float, *, per_connection: float = 0) -> None:
        """Allow `rate` a second and address, and `per_connection` a second and websocket; 0 is no limit."""
        self.per_connection = per_connection
        self._rate = rate
        self._recent: dict[str, TokenBucket] = {}
        self._older: dict[str, TokenBucket] = {}
        self._rotated = -1.0
        # The time that an empty bucket takes to fill; a bucket in `_older` has not been touched for as long.
        self._memory = BURST_SECONDS if rate * BURST_SECONDS >= 1 else 1 / max(rate, 1e-9)

    def connection(self) -> TokenBucket:
        """Return a bucket for what one websocket may send."""
        return TokenBucket(self.per_connection, now=trio.current_time())

    def take(self, address: str) -> float:
        """Take a token of this address and return 0, or return the seconds until there is one."""
        if self._rate == 0:
            return 0
        now = trio.current_time()
        self._forget(now)
        key = subscriber(address)
        bucket = self._recent.get(key)
        if bucket is None:
            bucket = self._older.pop(key) if key in self._older else TokenBucket(self._rate, now=now)
            self._recent[key] = bucket
        return bucket.take(now)

    def _forget(self, now: float) -> None:
        if now >= self._rotated + self._memory:
            stale = now >= self._rotated + 2 * self._memory
            self._older = {} if stale else self._recent
            self._recent = {}
            self._rotated = now
