"""The issuer's public keys: fetched by a task ahead of their expiry, and kept while the provider is away.

Theory of operation. `run` fetches again and again: after a success when four fifths of the time have passed that the
provider allows (between SHORTEST and LONGEST), after a failure sooner, with pauses that grow to LONGEST_PAUSE. What was
fetched stays until something else was: a provider that is away costs nothing but new keys.

A token may name a key that is not among them: the provider began to sign with it before we looked again, or somebody
made it up. `find` then asks `run` to fetch at once, and waits for that fetch, unless one began less than QUIET ago:
whatever is sent, the provider is asked at most once in that time. Those who wait are few and wait shortly, so that they
take no place from others: beyond MOST_WAITING, and after PATIENCE, the answer is to come again.

Only the event loop touches any of this.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
import trio

from service.platform.errors import MAX_DETAIL, Unavailable, cut

log = structlog.get_logger(__name__)

QUIET = 30.0  # seconds from the begin of a fetch in which an unknown key does not cause another
SHORTEST, LONGEST, USUAL = 60.0, 3600.0, 600.0  # seconds for which keys are taken to be fresh
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two fetches that fail
FETCH_TIMEOUT = 10.0  # seconds for one fetch as a whole
PATIENCE = 3.0  # seconds that a request waits for a fetch
MOST_WAITING = 16
AWAY = "identity unreachable"  # the reason for a refusal


class ProviderAway(Exception):
    """The keys cannot be had; the message says why, and goes into the log and to `/healthz`."""


@dataclass(frozen=True, slots=True)
class Fetched[Key]:
    """Keys by their `kid`, and for how long the provider says they are good, in seconds."""

    keys: Mapping[str, Key]
    max_age: float = USUAL


@dataclass
class KeyStatistics:
    fetches: int = 0  # that are over
    failures: int = 0
    unknown: int = 0  # tokens that named a key that is not there
    waiting: int = 0


class Keys[Key]:
    """`find` for requests, `run` for the task that fetches."""

    def __init__(
        self, fetch: Callable[[], Awaitable[Fetched[Key]]], *, on_change: Callable[[], object] = lambda: None
    ) -> None:
        """`on_change` is called when a key is gone or is another one, as what it had signed holds no more."""
        self._fetch = fetch
        self._on_change = on_change
        self._keys: Mapping[str, Key] = {}
        self._begun = float("-inf")
        self._fetched: float | None = None
        self._asked = trio.Event()
        self._under_way: trio.Event | None = None  # set when the fetch that was asked for, or has begun, is over
        self.error = ""
        self.statistics = KeyStatistics()

    @property
    def count(self) -> int:
        return len(self._keys)

    @property
    def age(self) -> float | None:
        """Return how many seconds ago the keys were fetched; None for never."""
        return None if self._fetched is None else trio.current_time() - self._fetched

    def get(self, kid: str | None) -> Key | None:
        """Return a key; without a name the only one, as some issuers do not name it."""
        if kid is not None:
            return self._keys.get(kid)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    async def find(self, kid: str | None) -> Key | None:
        """Return a key, None when the issuer has none of this name.

        Raises Unavailable when nobody can tell: there are no keys yet, the last fetch failed, or too many wait.
        """
        if (key := self.get(kid)) is not None:
            return key
        self.statistics.unknown += 1
        if self._under_way is None and trio.current_time() >= self._begun + QUIET:
            self._under_way = trio.Event()
            self._asked.set()
        if self._under_way is not None:
            await self._wait(self._under_way)
        if self._fetched is None:
            raise Unavailable("the identity provider's keys are not there yet", retry_after=PATIENCE, reason=AWAY)
        if (key := self.get(kid)) is None and kid is not None and self.error:
            raise Unavailable("the identity provider is away, and may have new keys", retry_after=PATIENCE, reason=AWAY)
        return key

    async def _wait(self, fetched: trio.Event) -> None:
        if self.statistics.waiting >= MOST_WAITING:
            raise Unavailable("too many wait for the identity provider's keys", retry_after=PATIENCE, reason=AWAY)
        self.statistics.waiting += 1
        try:
            with trio.move_on_after(PATIENCE):
                await fetched.wait()
                return
        finally:
            self.statistics.waiting -= 1
        raise Unavailable("the identity provider takes its time over its keys", retry_after=PATIENCE, reason=AWAY)

    async def run(self) -> None:
        """Fetch for ever."""
        pause = FIRST_PAUSE
        while True:
            fresh = await self._try()
            with trio.move_on_after(fresh or pause):
                await self._asked.wait()
            pause = FIRST_PAUSE if fresh else min(2 * pause, LONGEST_PAUSE)

    async def _try(self) -> float:
        """Fetch once; return in how many seconds to fetch again, 0 for a failure."""
        self._begun = trio.current_time()
        self._asked = trio.Event()
        under_way = self._under_way = self._under_way if self._under_way is not None else trio.Event()
        try:
            with trio.fail_after(FETCH_TIMEOUT):
                fetched = await self._fetch()
        except (ProviderAway, trio.TooSlowError) as error:
            self._note(str(error) or f"no answer within {FETCH_TIMEOUT:g} seconds")
            return 0
        else:
            self._take(fetched.keys)
            self._note("")
            return 0.8 * min(max(fetched.max_age, SHORTEST), LONGEST)
        finally:
            self._under_way = None
            under_way.set()

    def _take(self, keys: Mapping[str, Key]) -> None:
        gone = any(keys.get(kid) != key for kid, key in self._keys.items())
        if keys != self._keys:
            log.info("keys of the identity provider", count=len(keys))
        self._keys, self._fetched = keys, trio.current_time()
        if gone:
            self._on_change()

    def _note(self, error: str) -> None:
        error = cut(error, MAX_DETAIL)  # a provider's own words may be in there
        self.statistics.fetches += 1
        self.statistics.failures += bool(error)
        if error != self.error:
            if error:
                log.warning("identity provider away", error=error, kept=len(self._keys))
            else:
                log.info("identity provider is back")
        self.error = error
