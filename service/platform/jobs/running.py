"""A job that this process has claimed: until when it may go on, and why it was told to end."""

import enum
import math

import trio

from service.platform.jobs.store import Claimed

LEASE = 3.0  # seconds; who is gone is replaced when it is over, or at the first look behind that (IDLE): below 5
PATIENCE = 1.0  # seconds that a job may wait here for a slot
OVERDUE = 5.0  # seconds after its deadline from which a job is said not to end


class Why(enum.StrEnum):
    """Why a job was cancelled."""

    DEADLINE = "deadline"
    LEASE = "lease"
    STOP = "stop"


class Running:
    """Times are the event loop's: `lease` is how long the claim holds as far as this process knows."""

    __slots__ = ("claimed", "ends", "has_returned", "lease", "patient", "scope", "told", "why")

    def __init__(self, claimed: Claimed, lease: float) -> None:
        self.claimed = claimed
        self.lease = lease
        self.patient = trio.current_time() + PATIENCE
        self.ends = math.inf
        self.scope: trio.CancelScope | None = None  # of the function, once it has begun
        self.why: Why | None = None
        self.has_returned = False  # the function; what is still to be written is bound by no deadline
        self.told = False  # that it does not end

    def begin(self, now: float, deadline: float) -> trio.CancelScope:
        self.ends = now + deadline
        self.scope = trio.CancelScope(deadline=min(self.ends, self.lease))
        return self.scope

    def extend(self, lease: float) -> None:
        self.lease = lease
        if self.scope is not None:
            self.scope.deadline = min(self.ends, lease)

    def cancel(self, why: Why) -> None:
        self.why = self.why or why
        if self.scope is not None:
            self.scope.cancel()

    def is_overdue(self, now: float) -> bool:
        return not self.has_returned and now > self.ends + OVERDUE

    def may_begin(self, now: float) -> bool:
        return self.why is None and now < self.lease

    @property
    def cancelled(self) -> bool:
        return self.scope is not None and self.scope.cancelled_caught

    def reason(self) -> Why:
        """Return why the scope was cancelled."""
        return self.why or (Why.LEASE if self.lease < self.ends else Why.DEADLINE)
