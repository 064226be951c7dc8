"""Claims what is due as long as there is room, takes the turns of schedules, and rescues what others have lost."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Concatenate

import structlog
import trio
from sqlalchemy import Connection

from service.platform.errors import OutcomeUnknown, Unavailable
from service.platform.jobs import store
from service.platform.jobs.declare import Job
from service.platform.jobs.enqueue import take_turn
from service.platform.jobs.held import Held
from service.platform.jobs.ledger import Ledger
from service.platform.jobs.running import LEASE
from service.platform.jobs.statistics import JobStatistics
from service.platform.jobs.store import Claimed, Outlook
from service.platform.jobs.table import IDLE

SOON = 0.02  # seconds behind a moment that the database has named, so that it has come when we ask
LOCKED = 0.1  # seconds between two looks at a lease that is over, and that cannot be ended yet
STEP = 1.0  # seconds by which the database's clock may be ahead of what was expected: who lives extends in time then
UNSURE = 0.25  # seconds between two looks for what a claim without an answer has taken: its COMMIT may come late
LINGER = 0.01  # seconds that what is enqueued after a claim waits for more that is

log = structlog.get_logger(__name__)


class Claims:
    """What it claims is added to `held`; then `begin` is called. `age` is the seconds that a finished job is kept."""

    def __init__(
        self,
        ledger: Ledger,
        held: Held,
        kinds: Mapping[str, Job[...]],
        statistics: JobStatistics,
        *,
        worker: str,
        age: float,
        begin: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._held = held
        self._kinds = tuple(kinds.values())
        self._limited = {one.name for one in self._kinds if one.concurrency is not None}
        self._statistics = statistics
        self._worker = worker
        self._age = age
        self._begin = begin
        self._wake = trio.Event()
        self._look_at = -math.inf
        self._rescues_at = -math.inf  # no lease is over before: after an outage those that live extend theirs first
        self._unsure_until = -math.inf  # whether a claim has taken what we do not know of
        self._ahead = math.inf  # the database's clock, in seconds since 1970, less Trio's, at the latest look
        self._turns: dict[str, datetime] = {}
        self._claiming = trio.Lock()
        self._stopping = False
        self._sure = trio.Event()

    def wake(self) -> None:
        """Look for work now: something was enqueued, or a limit is free."""
        self._wake.set()

    def look_after(self, seconds: float) -> None:
        """Look at the table so many seconds from now at the latest: something is due then."""
        self._look_at = min(self._look_at, trio.current_time() + seconds + SOON)
        self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._held.let_go()

    async def settle(self) -> None:
        """Wait for what has been asked for: it is ours by then."""
        async with self._claiming:
            pass

    async def wait_sure(self) -> None:
        """Wait until nothing is ours any more of which we do not know; once we have stopped."""
        if self._is_unsure:
            await self._sure.wait()

    def drop(self, claimed: Sequence[Claimed], *, returned: int = 0) -> None:
        """Forget what was ended or lost, so that there is room for others."""
        self._held.drop(claimed, returned=returned)
        if any(one.kind in self._limited for one in claimed):
            self.wake()

    async def take(self) -> None:
        """Claim what is due, as long as there is room; look at the table when nothing is heard for some time.

        Once stopped, go on until nothing is ours of which we do not know.
        """
        self._look_at = -math.inf
        while not self._stopping:
            woken, self._wake = self._wake.is_set(), trio.Event()
            if trio.current_time() >= self._look_at:
                woken = await self._look() or woken
            room = self._held.room
            claimed = await self.claim(room) if woken and room else 0
            if woken and claimed == room:
                self._wake.set()  # there may be more
                with trio.move_on_at(self._look_at):  # then what others have lost is rescued all the same
                    await self._held.wait_worth_it()
            else:
                if claimed:
                    await trio.sleep(LINGER)
                with trio.move_on_at(self._look_at):
                    await self._wake.wait()
        while self._is_unsure:
            await self._hand_back_unknown()
            await trio.sleep(UNSURE)
        self._sure.set()

    async def claim(self, room: int) -> int:
        """Claim up to so many, and return how many there were."""
        async with self._claiming:
            if self._stopping:
                return 0
            lease = trio.current_time() + LEASE
            try:
                claimed = await self._ask(store.claim, self._kinds, most=room, worker=self._worker, lease=LEASE)
            except OutcomeUnknown:  # whatever else is raised, nothing is committed
                self._unsure_until = math.inf
                raise
            self._held.add(claimed, lease)
            self._begin()
            return len(claimed)

    async def _look(self) -> bool:
        """Rescue, let turns wait, settle when to look again, and return whether something is due now."""
        begun, self._look_at = trio.current_time(), math.inf
        unsure = self._is_unsure
        seen = await self._see(rescuing=begun >= self._rescues_at)
        for one in seen.rescued:
            self._statistics.rescued[one.kind] += 1
            tell, what = (log.error, "job dead") if one.state == "dead" else (log.warning, "job rescued")
            tell(what, kind=one.kind, id=one.id, attempt=one.failures, error=one.error)
        turned, next_turn = await self._take_turns(seen.now)
        # one that is over is left where it is locked
        lease = None if seen.lease is None else max(seen.lease, LOCKED, self._rescues_at - begun)
        moments = [one + SOON for one in (seen.due, lease, next_turn) if one is not None]
        idle = UNSURE if unsure else IDLE * random.uniform(0.75, 1)  # noqa: S311  spreads replicas, keeps no secret
        pause = max(SOON, min([idle, *moments]))
        self._look_at = min(self._look_at, begun + pause)
        return seen.ready or turned or bool(seen.rescued)

    @property
    def _is_unsure(self) -> bool:
        return trio.current_time() < self._unsure_until

    async def _hand_back_unknown(self) -> None:
        """Hand back what a claim has taken of which we have no answer; for as long as a lease, once we can ask."""
        known = [running.claimed for running in self._held]
        await self._ask(store.hand_back_unknown, known, worker=self._worker)
        if self._unsure_until == math.inf:
            self._unsure_until = trio.current_time() + LEASE

    async def _see(self, *, rescuing: bool) -> Outlook:
        """Look at the table. One comes within the time of a lease while jobs run, so no longer outage is missed."""
        if self._is_unsure:
            await self._hand_back_unknown()
        begun, ahead = trio.current_time(), self._ahead
        until = begun + ahead + STEP
        seen = await self._ask(store.look, self._kinds, lease=LEASE, rescuing=rescuing, until=until)
        now = trio.current_time()
        self._ahead = seen.now.timestamp() - max(begun, now - STEP)  # a long wait would hide a step that ends leases
        if self._rescues_at == math.inf or seen.now.timestamp() > now + ahead + STEP:
            self._rescues_at = now + LEASE
        return seen

    async def _take_turns(self, now: datetime) -> tuple[bool, float | None]:
        turned, nexts = False, []
        for one in self._kinds:
            if one.schedule is None:
                continue
            turn = one.schedule.latest(now)
            if self._turns.get(one.name) != turn and await self._ask(take_turn, one, turn, age=self._age):
                self._turns[one.name] = turn
                turned = True
            nexts.append((one.schedule.following(now) - now).total_seconds())
        return turned, min(nexts, default=None)

    async def _ask[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit about jobs. When the database is away, those that live extend their leases first when it is back.

        And who is the database then may not have the latest turns.
        """
        try:
            return await self._ledger.ask(function, *args, **kwargs)
        except Unavailable:
            self._rescues_at = math.inf
            self._turns.clear()
            raise
