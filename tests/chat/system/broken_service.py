"""`python -m tests.chat.system.broken_service BUG serve`: the service with one function of the chat made wrong.

The bugs are those that the guarantees are about. None of them shows in a log or a status: only the checker can tell.
"""

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import trio
from sqlalchemy import Connection

from service.__main__ import run
from service.chat import relay
from service.chat.backlog import Pending
from service.chat.conversation import RoomsConversation
from service.chat.presence import Presence
from service.chat.protocol import Ack
from service.chat.room import Seat
from service.chat.rooms import Rooms
from service.chat.store import Appended, Stored
from service.chat.tail import Burst
from service.chat.writer import NO_OPTIONS, Writer
from service.platform.database import Database

WINDOW = 0.5  # seconds between the early ack and the commit, so that a kill comes in between


def ack_before_commit() -> None:
    """Tell the senders as soon as the rows are written, inside the transaction."""
    store = Writer._store

    async def store_and_ack_early(
        self: Writer,
        batch: Sequence[Pending],
        unit: Callable[..., Appended],
        options: Mapping[str, float] = NO_OPTIONS,
        *,
        common: bool = False,
    ) -> list[str]:
        def ack(appended: Appended) -> None:
            for pending, result in zip(batch, appended.results, strict=True):
                if isinstance(result, Stored):
                    draft = pending.draft
                    early = Ack(id=draft.id, room=draft.room, epoch=appended.epoch, seq=result.seq, dup=result.dup)
                    self._backlog.answer(pending, early)

        def unit_and_ack(connection: Connection, *arguments: Any, **options: float) -> Appended:
            appended = unit(connection, *arguments, **options)
            token.run_sync_soon(ack, appended)  # which a cancelled unit may still call
            time.sleep(WINDOW)
            return appended

        token = trio.lowlevel.current_trio_token()
        batch = [pending for pending in batch if not pending.answered]
        return await store(self, batch, unit_and_ack, options)

    Writer._store = store_and_ack_early  # type: ignore[method-assign]  # planted


def lost_notify() -> None:
    """Hear no notification of other replicas. The tick makes up for it: alone, this is no violation."""

    async def hear_nothing(database: Database, rooms: Rooms, presence: Presence) -> None:
        await trio.sleep_forever()

    relay.listen = hear_nothing


def lost_notify_without_tick() -> None:
    """Hear no notification, and never look whether the rooms have gone on."""

    async def look_away(database: Database, rooms: Rooms) -> None:
        await trio.lowlevel.checkpoint()

    lost_notify()
    relay.look = look_away


def shuffled_order() -> None:
    """Send a message now and then after the one that follows it, as a loop that awaits each member's send does."""
    deliver = RoomsConversation.deliver
    held: WeakKeyDictionary[RoomsConversation, Burst] = WeakKeyDictionary()

    def deliver_late(self: RoomsConversation, burst: Burst) -> None:
        before = held.pop(self, None)
        if before is None and random.random() < 0.1:
            held[self] = burst
            return
        deliver(self, burst)
        if before is not None:
            deliver(self, before)

    RoomsConversation.deliver = deliver_late  # type: ignore[method-assign]  # planted


def dropped_resume() -> None:
    """Tell a member who comes back that it goes on where it was, and give it only what is new."""

    async def no_catch_up(self: RoomsConversation, seat: Seat) -> None:
        await trio.lowlevel.checkpoint()
        seat.cursor, seat.live = seat.room.head, True

    RoomsConversation._catch_up = no_catch_up  # type: ignore[method-assign]  # planted


BUGS = {bug.__name__: bug for bug in (
    ack_before_commit, lost_notify, lost_notify_without_tick, shuffled_order, dropped_resume,
)}  # fmt: skip

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    run()
