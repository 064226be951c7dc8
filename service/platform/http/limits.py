"""How much a route lets anybody do: what each route and websocket declares, beside who may.

    @routes.get("/api/report")
    @signed_in
    @limited(rate=2, concurrency=4)
    async def report() -> Report: ...

    @routes.get("/api/orders")
    @signed_in
    @unlimited("a read of one page")
    async def orders() -> Orders: ...

A route that declares neither stops the start. Whatever is declared, these hold for all: SERVICE_MAX_REQUESTS, the
deadline, SERVICE_MAX_BODY_BYTES, and SERVICE_RATE_PER_ADDRESS for what changes something and for upgrades.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from service.platform.declarations import Declaration
from service.platform.errors import RateLimited, Unavailable
from service.platform.server import SAFE_METHODS, RateLimits, client_of

RETRY_AFTER = 1  # seconds
LEAST_RATE = 1e-6  # a second; who is told to come back after longer is told nothing

_EVERYBODY: AbstractContextManager[None] = nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a route declares; 0 is not limited by that."""

    rate: float = 0  # requests or upgrades a second and client address; two seconds' worth may come at once
    by_address: bool = False  # they count against SERVICE_RATE_PER_ADDRESS, also where they change nothing
    concurrency: int = 0  # at once, in this process
    body: int = 0  # bytes
    why_none: str = ""

    @property
    def may_be_too_many(self) -> bool:
        """Whether the answer may be 429."""
        return bool(self.rate or self.by_address)

    def document(self) -> dict[str, float]:
        """Return what clients may know of it."""
        given = {"rate": self.rate, "concurrency": self.concurrency, "body": self.body}
        return {name: value for name, value in given.items() if value}


LIMITS = Declaration(
    Limit,
    missing='does not say how it is limited; put @limited(…) or @unlimited("why") below its path',
    twice="says twice how it is limited",
)
limit_of, without_limit = LIMITS.of, LIMITS.missing


def limited[F: Callable[..., object]](
    *, rate: float | None = None, concurrency: int | None = None, body: int | None = None
) -> Callable[[F], F]:
    """Declare what is let through of a route; without arguments, that it counts against SERVICE_RATE_PER_ADDRESS.

    `rate` is per second and client address (429; off with SERVICE_RATE_PER_ADDRESS=0), `concurrency` how many are
    answered at once in a process (503), in parts until the last, `body` bytes (413), within SERVICE_MAX_BODY_BYTES.
    Raises ValueError for what is no limit.
    """
    given = [one for one in (rate, concurrency, body) if one is not None]
    if not all(0 < one < math.inf for one in given):
        raise ValueError(f"a limit must be a number above 0, not {', '.join(map(repr, given))}")
    if not all(isinstance(one, int) for one in (concurrency, body) if one is not None):
        raise ValueError(f"concurrency and body must be whole numbers, not {concurrency!r} and {body!r}")
    if rate is not None and rate < LEAST_RATE:
        raise ValueError(f"rate: must be at least {LEAST_RATE} a second, one request in 11 days, not {rate!r}")
    limit = Limit(rate=rate or 0, by_address=not given, concurrency=concurrency or 0, body=body or 0)
    return lambda view: LIMITS.put(view, limit)


def unlimited[F: Callable[..., object]](why: str) -> Callable[[F], F]:
    """Declare that a route needs no limit beside those that hold for all, and why."""
    if not why.strip():
        raise ValueError("say why a route needs no limit")
    return lambda view: LIMITS.put(view, Limit(why_none=why))


class Places:
    """How many may be inside at once; a context manager that raises Unavailable when it is full."""

    def __init__(self, most: int) -> None:
        self._free = most

    def __enter__(self) -> None:
        if not self._free:
            raise Unavailable("too many ask for this at once", retry_after=RETRY_AFTER, reason="route busy")
        self._free -= 1

    def __exit__(self, *_: object) -> None:
        self._free += 1


class Limiter:
    """The limits of one route in one process."""

    def __init__(self, limit: Limit, addresses: RateLimits, *, by_rate: bool = True) -> None:
        """Take tokens of `addresses` for what counts against them; with `by_rate` false no rate holds."""
        self._limit = limit
        self._addresses = addresses
        self._own = RateLimits(limit.rate if by_rate else 0)
        self.places = Places(limit.concurrency) if limit.concurrency else _EVERYBODY

    @property
    def body(self) -> int:
        """Bytes that a body may have, 0 for as many as any."""
        return self._limit.body

    def enter(self, scope: Mapping[str, Any]) -> None:
        """Raise RateLimited when an address has asked too often."""
        wait, reason = 0.0, ""
        if self._limit.rate:
            wait, reason = self._own.take(client_of(scope)), "route rate"
        elif self._limit.by_address and scope.get("method") in SAFE_METHODS:
            wait = self._addresses.take(client_of(scope))  # of all others the gate has taken it
        if wait:
            raise RateLimited("too many requests from this address", retry_after=wait, reason=reason)
