"""Retention: what is older than the setting goes, a few rows at a time, while nobody waits for it."""

import structlog
import trio

from service.chat import store
from service.chat.settings import ChatSettings
from service.platform.database import Database
from service.platform.jobs import JobContext, job

ROOMS, EACH = 100, 100  # looked at by one deletion, and messages that it takes of each at most
PAUSE = 0.05  # seconds between two deletions, so that a round leaves the database to those who wait for it

log = structlog.get_logger(__name__)


@job(every=60, deadline=3_600, concurrency=1)
async def sweep_old_messages(context: JobContext) -> None:
    """Delete what is older than SERVICE_CHAT_RETENTION: once a minute, by one replica."""
    retention = context.settings.of(ChatSettings).retention
    if deleted := await sweep_once(context.database, retention=retention):
        log.info("old messages deleted", count=deleted)


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
