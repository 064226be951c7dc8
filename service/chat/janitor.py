"""Retention: what is older than the setting goes, a few rows at a time, while nobody waits for it."""

import structlog
import trio

from service.chat import store
from service.platform.database import Database

ROOMS, EACH = 100, 100  # looked at by one deletion, and messages that it takes of each at most
PAUSE = 0.05  # seconds between two deletions, so that a round leaves the database to those who wait for it

log = structlog.get_logger(__name__)


async def sweep(database: Database, *, retention: float, every: float) -> None:
    """Delete for ever what is older than `retention` seconds. Replicas that do the same at once cost only time."""
    while True:
        if deleted := await sweep_once(database, retention=retention):
            log.info("old messages deleted", count=deleted)
        await trio.sleep(every)


async def sweep_once(database: Database, *, retention: float) -> int:
    """Go once over all rooms; return how many messages are gone."""
    after: str | None = ""
    total = 0
    while after is not None:
        last, deleted = await database.run(store.delete_old, age=retention, after=after, rooms=ROOMS, each=EACH)
        total += deleted
        after = after if deleted else last  # where something was, there may be more
        await trio.sleep(PAUSE)
    return total
