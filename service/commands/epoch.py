"""The verb `epoch`: a new epoch for the chat, after a restore or a failover that lost commits."""

import trio

from service.chat.store import renew_epoch
from service.database import open_database
from service.settings import Settings


async def epoch(settings: Settings) -> str:
    """Make and return a new epoch. Raises DatabaseAway."""
    async with open_database(settings) as database:
        return await database.run(renew_epoch)


def print_new_epoch(settings: Settings) -> None:
    """Make a new epoch and say so; replicas that run take it up within a second or two."""
    print(f"the chat's epoch is now {trio.run(epoch, settings)}")
