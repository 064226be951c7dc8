"""The verb `epoch`: a new epoch for the chat, after a restore or a failover that lost commits."""

import trio

from service.chat.store import renew_epoch
from service.platform.database import open_database
from service.platform.errors import DeadlineExceeded
from service.platform.settings import PlatformSettings


async def epoch(settings: PlatformSettings) -> str:
    """Make and return a new epoch, which running replicas take up within a second or two. Raises Unavailable."""
    async with open_database(settings) as database:
        with trio.move_on_after(settings.request_deadline):
            return await database.run(renew_epoch)
        late = f"PostgreSQL did not answer within {settings.request_deadline:g} s; nothing is committed"
        raise DeadlineExceeded(late)
