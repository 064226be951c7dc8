"""The sessions of browsers, as one process knows them: whose each is, and which websockets live on it.

Theory of operation. The table is the truth. What was read from it is believed for POLL seconds, and not a moment longer
once a NOTIFY says that the session has ended. `listen` hears that on every replica, and ends the websockets of the
session at once. A notification may be missed: so `listen` looks at the table after each loss of its connection, and
`poll` each POLL seconds, whether the sessions that websockets live on are still there.

Only the event loop touches any of this.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Concatenate

import trio
from sqlalchemy import Connection

from service.platform.database import Database
from service.platform.errors import OutcomeUnknown
from service.platform.identity import session_store as store
from service.platform.identity.caller import Caller
from service.platform.identity.ids import make_id, read_id
from service.platform.identity.statistics import IdentityStatistics
from service.platform.identity.stay import Stay

POLL = 5.0  # seconds
MOST_KNOWN = 10_000
ENDED = "signed out"
# How the end of many websockets is spread out. One takes the event loop 0.2 ms when it is told, and 0.4 ms when its
# peer has answered. A thousand are told within a second, and their answers are read in the four that follow.
TELL, TURN = 0.85, 0.001  # seconds for all, seconds for one where that is less
SEE_OFF = 4  # times the time that it takes to tell them
MOST_AT_ONCE = 2  # once it is late


class Sessions:
    """One for the process."""

    def __init__(self, database: Database, statistics: IdentityStatistics) -> None:
        self._database = database
        self._statistics = statistics
        # whose, until when that is believed, and when it is over: by Trio's clock, which no step of the wall's moves
        self._known: OrderedDict[bytes, tuple[Caller, float, float]] = OrderedDict()
        self._stays: dict[bytes, set[Stay]] = {}
        self._ends = 0  # how many ends were heard of

    async def begin(self, caller: Caller, *, lifetime: float, sid: str | None, before: str | None) -> str:
        """Return the id of a new session of so many seconds; the one that the browser had before ends."""
        value, digest = make_id()
        replaces = None if before is None else read_id(before)
        replaced, crowded = await self._run(
            store.insert_session, digest=digest, caller=caller, lifetime=lifetime, sid=sid, before=replaces
        )
        self._statistics.sessions_begun += 1
        self._statistics.sessions_ended["replaced"] += replaced
        self._statistics.sessions_ended["too many"] += crowded
        return value

    async def _run[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit of work that may be run twice, for whoever cannot repeat it when its outcome is unknown.

        The code of a sign-in was good once, and providers tell of a sign-out once.
        """
        try:
            return await self._database.run(function, *args, **kwargs)
        except OutcomeUnknown:
            return await self._database.run(function, *args, **kwargs)

    async def find(self, digest: bytes) -> Caller | None:
        """Return whose a session is; None for one that is not there, or has ended.

        When it expires is said by this process's clock as it is now: of what the database's says is left.
        """
        begun, ends = trio.current_time(), self._ends
        known = self._known.get(digest)
        if known is None or begun >= known[1]:
            if (found := await store.read_session(self._database, digest)) is None:
                return None
            caller, left = found
            known = caller, begun + min(POLL, left), begun + left
            if ends == self._ends:  # else it may be the one that has ended meanwhile
                self._known[digest] = known
                self._known.move_to_end(digest)
                if len(self._known) > MOST_KNOWN:
                    self._known.popitem(last=False)
        caller, _, over = known
        return replace(caller, expires=time.time() + over - trio.current_time())

    async def end(self, value: str) -> list[str]:
        """End a session, here at once and on the other replicas when they hear of it; return whose it was."""
        if (digest := read_id(value)) is None:
            return []
        ended = await self._run(store.end_session, digest=digest)
        self._statistics.sessions_ended[ENDED] += len(ended)
        with trio.CancelScope(shield=True):  # for TELL seconds: whoever signs out may hang up, and none may be left
            await self._end(digest)
        return ended

    async def end_by_provider(self, *, subject: str | None, sid: str | None) -> list[str]:
        """End sessions on every replica, as each hears of it; return whose each was."""
        ended = await self._run(store.end_by_provider, subject=subject, sid=sid)
        self._statistics.sessions_ended["by provider"] += len(ended)
        return ended

    def hold(self, digest: bytes, stay: Stay) -> Callable[[], None]:
        """Let a websocket end with a session; return what forgets it, for when it is gone."""
        self._stays.setdefault(digest, set()).add(stay)

        def release() -> None:
            stays = self._stays.get(digest, set())
            stays.discard(stay)
            if not stays:
                self._stays.pop(digest, None)

        return release

    @property
    def held(self) -> int:
        """Return how many websockets live on sessions."""
        return sum(map(len, self._stays.values()))

    async def listen(self) -> None:
        """Hear of ends, for ever."""
        async with self._database.listen(store.CHANNEL) as wakeups:
            async for payloads in wakeups:
                if payloads is None:
                    await self._look()
                else:
                    await self._end(*filter(None, map(store.read_telling, payloads)))

    async def poll(self) -> None:
        """Look at the table, for ever."""
        while True:
            await trio.sleep(POLL)
            await self._look()

    async def _look(self) -> None:
        self._known.clear()
        if held := set(self._stays):
            live = await self._database.read(store.select_live, digests=held)
            await self._end(*(held - live))

    async def _end(self, *digests: bytes) -> None:
        """End the websockets of sessions, one after the other and all within TELL seconds.

        Others have their turns between any two: what ended together would hold up each of them by all.
        """
        self._ends += 1
        for digest in digests:
            self._known.pop(digest, None)
        stays = [stay for digest in digests for stay in self._stays.pop(digest, ())]
        begun, told, count = trio.current_time(), 0, len(stays)
        turn = min(TURN, TELL / max(1, count))
        while told < count:
            late = int((trio.current_time() - begun) / turn) - told
            for stay in stays[told : told + max(1, min(late, MOST_AT_ONCE))]:
                stay.end(ENDED, seen_off_at=begun + turn * (count - 1 + SEE_OFF * told))
                told += 1
            if told < count:
                await trio.sleep_until(begun + turn * told)  # a checkpoint, whatever the time
