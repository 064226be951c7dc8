"""What other replicas commit: listen for hints, read on by seq, and look each second whatever was heard.

A notification says only that a room has come to a seq; what is delivered is read from the table. So one that is lost,
doubled or made up costs at most a second, and the second also brings up a new epoch. Each of the three may fail with
the database, and is run again: it keeps nothing that the table or its next turn would not tell.
"""

from itertools import batched

import structlog
import trio

from service.chat import pages, store
from service.chat.presence import MARK, Presence
from service.chat.rooms import Rooms
from service.chat.tables import CHANNEL
from service.platform.database import Database

TICK = 1.0  # seconds
ROOMS_AT_ONCE = 1_000
MOST_DIGITS = 18  # of a seq; a notification may be anybody's who has the database
TOLD = 1_000  # members told of a new count in a tick: a room of 10,000 in which people come and go hears each 10 s

log = structlog.get_logger(__name__)


async def listen(database: Database, rooms: Rooms, presence: Presence) -> None:
    async with database.listen(CHANNEL, own=False) as wakeups:  # what is committed here is delivered when that is known
        async for payloads in wakeups:
            if payloads is None:  # some may have been missed
                await look(database, rooms)
            for payload in payloads or ():
                name, _, seq = payload.partition(":")
                if payload.startswith(MARK):
                    presence.take(payload, trio.current_time())
                elif seq.isascii() and seq.isdecimal() and len(seq) <= MOST_DIGITS:
                    rooms.note_head(name, int(seq))


async def tick(database: Database, rooms: Rooms, presence: Presence) -> None:
    while True:
        await trio.sleep(TICK)
        rooms.close_empty()
        await tell_members(rooms, presence)
        await look(database, rooms)
        await tell_replicas(database, rooms, presence)


async def tell_members(rooms: Rooms, presence: Presence) -> None:
    """Tell the members how many they are, as far as it has been heard."""
    counts = {room.name: room.size for room in rooms}
    for name, total in presence.changes(counts, trio.current_time()).items():
        rooms.count(name, total)
    await rooms.tell_counts(TOLD)


async def tell_replicas(database: Database, rooms: Rooms, presence: Presence) -> None:
    """Tell the other replicas how many are here: best effort, and repeated anyway."""
    if tellings := presence.tell({room.name: room.size for room in rooms}, trio.current_time()):
        await database.run(store.notify, tellings)


async def read_on(rooms: Rooms) -> None:
    while True:
        await rooms.read_on()
        await rooms.wait_behind()


async def look(database: Database, rooms: Rooms) -> None:
    """Find out which rooms have gone on, and whether the epoch is a new one."""
    for some in batched(rooms, ROOMS_AT_ONCE, strict=False):
        epoch, ahead = await pages.read_ahead(database, {room.name: room.head for room in some})
        for room in some:
            if room.epoch != epoch:
                room.mark_stale()
                rooms.note_head(room.name, room.newest)
        for name, seq in ahead.items():
            rooms.note_head(name, seq)
