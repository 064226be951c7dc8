"""One unit of work: one function, one transaction, one thread; and what orders its cancellation against the rest.

Theory of operation. Two sides share a Unit: the thread that runs it, and the task that waits for it.

The thread goes through these states, in this order and once each:

    started   -> attached    `with unit`: BEGIN and the function; a cancel request may reach the server
    attached  -> detached    the end of the `with`; after it come COMMIT or ROLLBACK, which no request may reach
    detached  -> ended       `_end` in the event loop; the task has the outcome, the pool gets the connection

The task leaves `run` with the outcome; or, cancelled, it calls `stop`, which sets `_stopped` and asks the server to
cancel while the thread is attached, again and again until the thread has ended. GRACE later it cuts the connection.

Who may change what. Under `_changed`: the thread `_attached`, the task `_stopped` and `_cancelling`. Only the thread,
without a lock: `committed`, `lost`, `notifications`, `outcome_unknown`, `value`, and `_delivered`, its last step; the
task reads them once `_running` is false, as `_end` runs in the loop because the thread has ended, or `_delivered` is
true. Only the loop: `_running`, `_ended`, `_waiting`, and the counts of what was sent and cut.

What cannot happen, and why.
- A cancel that reaches COMMIT, ROLLBACK or the next unit: the thread detaches only while `_cancelling` is false, and
  the task begins a request only while `_attached` is true; both look and set under the lock. A request ends only when
  the server has acted on it. One that failed on the way may still arrive: it leaves `tainted`, and the connection is
  closed rather than given back.
- A commit after `stop` found the thread attached: leaving the `with` looks at `_stopped` under the same lock under
  which it was set. So a unit that commits had detached before; then `stop` sends nothing and waits, COMMIT has its
  answer, and the caller is told `committed`.
- A statement that begins after `_stopped`: each one looks first (`refuse_statement`). One that began just before is
  either seen by a request or by the next one: that is why requests repeat, and why one is not enough.
- A thread that nobody waits for: `stop` is shielded and ends with the thread alone. It is bounded, as the connection
  is cut after GRACE and a thread has nothing else to wait for.
- A loop that ends without having heard of the thread: where Trio's own task for that has crashed, as for want of
  memory, `_end` never runs, so `stop` looks at `_delivered` as well.
- A request that hangs keeping the thread: the thread waits for `_cancelling` in `__exit__`. When GRACE is over, the
  scope round the request is cancelled, which cuts the connection and only then resets `_cancelling`: a ROLLBACK of the
  thread's finds no line on which the request might hit it.
- `_end` and an abort both waking the task: an abort sets `_waiting` to None, and both run in the loop.
"""

import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, Self

import trio
from outcome import Outcome
from psycopg.pq.abc import PGconn
from sqlalchemy import ExceptionContext

from service.platform.database.pooled import PooledConnection
from service.platform.database.wire import request_cancel
from service.platform.errors import Busy

GRACE = 0.5  # seconds that a server has to answer a cancel request before the connection is cut
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.1  # between two cancel requests: one that came between two statements is lost

ENDS_NO_TRANSACTION = "a unit of work ends no transaction: it is one, and the database commits it or rolls back"
_ENDS = re.compile(
    r"\s*(COMMIT|END|ABORT|ROLLBACK|PREPARE\s+TRANSACTION)\b(?!(\s+(WORK|TRANSACTION))?\s+TO\b)", re.IGNORECASE
)

_current = threading.local()


class Stopped(BaseException):
    """Ends a unit between two statements, once its caller has gone. Not an Exception: a unit should not catch it."""


class Unit:
    __slots__ = (
        "_attached", "_cancelling", "_changed", "_delivered", "_ended", "_pooled", "_running", "_stopped", "_waiting",
        "cancels_sent", "committed", "lost", "notifications", "outcome_unknown", "tainted", "transactional", "value",
        "was_cut",
    )  # fmt: skip

    def __init__(self, pooled: PooledConnection, *, transactional: bool) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._pooled = pooled
        self._attached = False
        self._cancelling = False
        self._stopped = False
        self._running = False
        self._delivered = False
        self._ended: trio.Event | None = None
        self._waiting: trio.lowlevel.Task | None = None
        self.transactional = transactional
        self.committed = False
        self.lost = False  # its line was, while the thread waited for an answer: written by the thread
        self.outcome_unknown = False
        self.value: Any = None
        self.notifications: set[tuple[str, str]] = set()  # to be sent once it is committed: written by the thread
        self.cancels_sent = 0
        self.tainted = False  # a cancel request may still be on its way: the connection is not to be used again
        self.was_cut = False

    @property
    def was_silent(self) -> bool:
        """True when it was cut as the server owed an answer; not when Python took its time."""
        return self.was_cut and self.lost

    # on the thread

    def __enter__(self) -> Self:
        """Let a cancel reach the connection from now on. Raises Stopped when the caller has gone already."""
        with self._changed:
            self._refuse_stopped()
            self._attached = True
        _current.unit = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let no cancel reach the connection any more. Raises Stopped when one was asked for: nothing is committed."""
        _current.unit = None
        with self._changed:
            while self._cancelling:
                self._changed.wait()
            self._attached = False
            if error is None:
                self._refuse_stopped()

    def _refuse_stopped(self) -> None:
        if self._stopped:
            raise Stopped

    # in the task

    async def run[**P, T](self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function on a thread of Trio's; once cancelled, wait no longer: `stop` does.

        `trio.to_thread.run_sync`, without its limiter, as `Slots` is ours, and without naming the thread: the two names
        a call are calls to the system that let the interpreter's lock go, and that cost a tenth of a unit.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._waiting = trio.lowlevel.current_task()
        self._running = True
        token = trio.lowlevel.current_trio_token()
        work = partial(copy_context().run, function, *args, **kwargs)
        try:
            trio.lowlevel.start_thread_soon(work, partial(self._deliver, token))
        except RuntimeError as error:  # of the interpreter: a limit of processes, or of memory
            self._running = False
            raise Busy("no thread can be started for this unit; nothing was sent") from error
        result: T = await trio.lowlevel.wait_task_rescheduled(self._wait_no_longer)
        return result

    def _wait_no_longer(self, _: object) -> trio.lowlevel.Abort:
        self._waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _deliver(self, token: trio.lowlevel.TrioToken, result: Outcome[Any]) -> None:
        """Tell the loop, from the thread."""
        self._delivered = True
        with suppress(trio.RunFinishedError):  # the loop has crashed
            token.run_sync_soon(self._end, result)

    def _end(self, result: Outcome[Any]) -> None:
        self._running = False
        if self._ended is not None:
            self._ended.set()
        if self._waiting is not None:
            trio.lowlevel.reschedule(self._waiting, result)

    async def stop(self) -> None:
        """End the unit and wait until its thread has ended; within GRACE as far as it depends on the server."""
        with self._changed:
            self._stopped = True
        if not self._running:
            return
        self._ended = trio.Event()
        with trio.move_on_after(GRACE):
            await repeat_until(self._ended, self._cancel_once)
            return
        self._cut()
        while not self._delivered:
            with trio.move_on_after(LONGEST_PAUSE):
                await self._ended.wait()

    def _cut(self) -> None:
        self._pooled.cut()
        self.was_cut = True

    async def _cancel_once(self) -> None:
        with self._changed:
            if not self._attached:
                return
            self._cancelling = True
            pgconn: PGconn = self._pooled.pgconn
        try:
            self.cancels_sent += 1
            if not await request_cancel(pgconn):
                self.tainted = True
        except trio.Cancelled:  # GRACE is over, and the thread does not go on to a ROLLBACK that the request might hit
            self._cut()
            raise
        finally:
            with self._changed:
                self._cancelling = False
                self._changed.notify_all()


async def repeat_until(ended: trio.Event, cancel_once: Callable[[], Awaitable[None]]) -> None:
    """Ask the server to cancel, again and again, until there is an end; the last request has ended then."""
    pause = FIRST_PAUSE
    while not ended.is_set():
        await cancel_once()
        with trio.move_on_after(pause):
            await ended.wait()
        pause = min(2 * pause, LONGEST_PAUSE)


def current_unit() -> Unit | None:
    """Return the unit that runs on this thread."""
    unit: Unit | None = getattr(_current, "unit", None)
    return unit


def refuse_statement(_cursor: object, statement: str, *_: object) -> None:
    """Stop between two statements, and send none that ends the unit's transaction: for SQLAlchemy's `do_execute`."""
    if (unit := current_unit()) is not None:
        unit._refuse_stopped()
        if unit.transactional and ends_transaction(statement):
            raise RuntimeError(ENDS_NO_TRANSACTION)


def ends_transaction(statement: str) -> bool:
    return _ENDS.match(statement) is not None


def keep_connection(context: ExceptionContext) -> None:
    """Keep the connection of a unit that was stopped: a listener for SQLAlchemy's `handle_error`.

    SQLAlchemy takes what is no Exception for the end of the process, and would close the connection.
    """
    if isinstance(context.original_exception, Stopped):
        context.is_disconnect = False


def refuse_commit(_: object) -> None:
    """Refuse a commit inside a unit: in the place of the dialect's."""
    raise RuntimeError("a unit of work does not commit: it is one transaction, and database.run commits it")
