"""Writes what async jobs have done in portions: a transaction for each would cost more than many a job.

Until then such a job is held like one that runs, and is run again should this process die.
"""

import trio

from service.platform.jobs import store
from service.platform.jobs.claims import Claims
from service.platform.jobs.held import Held
from service.platform.jobs.ledger import Ledger
from service.platform.jobs.store import Claimed

LINGER = 0.01  # seconds that what is done waits for more that is


class Done:
    def __init__(self, ledger: Ledger, held: Held, claims: Claims) -> None:
        self._ledger = ledger
        self._held = held
        self._claims = claims
        self._some: list[Claimed] = []
        self._any = trio.Event()

    def note(self, one: Claimed) -> None:
        """Have it written soon that a job is done, whose function has returned."""
        self._some.append(one)
        self._any.set()
        self._held.note_returned()

    async def write(self) -> None:
        """Write what is noted, all that there is at once, for ever."""
        while True:
            await self._any.wait()
            if len(self._held) > len(self._some):
                await trio.sleep(LINGER)
            some, self._some, self._any = self._some, [], trio.Event()
            try:
                held = await self._ledger.ask(store.finish_many, some)
            except BaseException:
                self._some = some + self._some
                self._any.set()
                raise
            self._ledger.note_lost(some, held)
            self._claims.drop(some, returned=len(some))
