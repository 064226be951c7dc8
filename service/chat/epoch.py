"""The verb `epoch`: a new epoch for the chat, after a restore or a failover that lost commits."""

from service.chat.store import renew_epoch
from service.platform.database import open_database
from service.platform.settings import PlatformSettings


async def epoch(settings: PlatformSettings) -> str:
    """Make and return a new epoch, which running replicas take up within a second or two. Raises Unavailable."""
    async with open_database(settings) as database:
        return await database.run(renew_epoch)
