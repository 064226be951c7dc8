"""What of identity lives as long as the process: the client, the keys and the task that fetches them."""

import importlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from service.platform.database import Database
from service.platform.identity import session_store, store
from service.platform.identity.keys import Keys
from service.platform.identity.sessions import Sessions
from service.platform.identity.statistics import IdentityStatistics, show_identity
from service.platform.identity.tickets import redeem
from service.platform.settings import PlatformSettings
from service.platform.telemetry import Metrics

if TYPE_CHECKING:
    from service.platform.identity.browsers import Browsers
    from service.platform.identity.gate import Gate
    from service.platform.identity.public_keys import PublicKey


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is asking, of one process. Without a gate it is off, and everybody is a guest."""

    gate: "Gate | None" = None
    browsers: "Browsers | None" = None
    keys: "Keys[PublicKey] | None" = None
    sessions: "Sessions | None" = None
    statistics: IdentityStatistics = field(default_factory=IdentityStatistics)

    def condition(self) -> dict[str, Any] | None:
        """Return the check of `/healthz`: whether the provider answers, and how old its keys are, in seconds."""
        if self.keys is None:
            return None
        age, error = self.keys.age, self.keys.error
        kept = "no keys yet" if age is None else "its keys are kept"
        state = f"the identity provider is away, {kept}: {error}" if error else "ok" if age is not None else kept
        return {"ok": not error and age is not None, "state": state, "age": round(age or 0, 3), "duration": 0}


NOBODY = Identity()  # off
SWEEP = 60.0  # seconds between two sweeps at most


async def keep_small(database: Database, statistics: IdentityStatistics) -> None:
    """Delete old tickets and sessions, for ever; what fails is done again soon, and not a minute later."""
    while True:
        await trio.sleep(random.uniform(0.5, 1) * SWEEP)  # noqa: S311  spreads replicas, keeps no secret
        await database.keep_running(sweep, database, statistics)


async def sweep(database: Database, statistics: IdentityStatistics) -> None:
    await database.run(store.delete_old_tickets)
    statistics.sessions_ended["expired"] += await database.run(session_store.delete_old_sessions)


def import_identity(settings: PlatformSettings) -> None:
    """Import what `open_identity` will need, ahead of all that waits for the event loop.

    joserfc and httpx2 take memory and more than a tenth of a second, which a service without a provider needs not.
    """
    if settings.auth_issuer is not None:
        importlib.import_module("service.platform.identity.browsers")


@asynccontextmanager
async def open_identity(settings: PlatformSettings, database: Database, metrics: Metrics) -> AsyncIterator[Identity]:
    """Yield who is asking; it waits for the database and never for the provider."""
    statistics = IdentityStatistics()
    if settings.auth_issuer is None or settings.auth_audience is None:
        show_identity(metrics, statistics, None)
        yield Identity(statistics=statistics)
        return
    # Here, where a provider is asked: `import_identity` has done it by then.
    from service.platform.calls import open_client
    from service.platform.identity.browsers import Browsers
    from service.platform.identity.gate import Gate
    from service.platform.identity.provider import Provider
    from service.platform.identity.tokens import Rules

    log_key: list[bytes] = []

    async def load() -> None:
        log_key.append(await database.read(store.select_log_key))

    await database.keep_running(load)
    async with open_client() as client, trio.open_nursery() as nursery:

        def forget() -> None:
            gate.forget()

        provider = Provider(client, settings.auth_issuer, settings.auth_jwks_url)
        keys = Keys(provider.fetch_keys, on_change=forget)
        rules = Rules(settings.auth_issuer, settings.auth_audience, frozenset(settings.auth_algorithms))
        sessions = None if settings.auth_client_id is None else Sessions(database, statistics)
        show_identity(metrics, statistics, keys)
        gate = Gate(rules, keys, log_key[0], statistics, redeem=partial(redeem, database), sessions=sessions)
        nursery.start_soon(keys.run)
        browsers = None
        if sessions is not None and settings.auth_client_id is not None:
            secret = settings.auth_client_secret
            browsers = Browsers(
                provider,
                gate,
                sessions,
                statistics,
                issuer=settings.auth_issuer,
                client=settings.auth_client_id,
                secret=None if secret is None else secret.get_secret_value(),
                scopes=" ".join(settings.auth_scopes),
                lifetime=settings.auth_session_lifetime,
            )
            nursery.start_soon(database.keep_running, sessions.listen)
            nursery.start_soon(database.keep_running, sessions.poll)
        nursery.start_soon(keep_small, database, statistics)
        yield Identity(gate, browsers, keys, sessions, statistics)
        nursery.cancel_scope.cancel()
