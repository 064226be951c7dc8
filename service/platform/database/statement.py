"""A unit of one statement: BEGIN and the statement in one packet, COMMIT in a second, and no thread.

Theory of operation. One task does it all. It goes through these states, in this order and once each:

    new       -> asked       BEGIN and the statement are sent together; a cancel request may reach the server
    asked     -> answered    the server's answer to both is read to its end; after it no request may reach the server
    answered  -> committing  COMMIT is sent; or the statement was refused, and ROLLBACK is
    any       -> ended       the outcome is known, or the connection is broken

One that only reads is sent alone, without BEGIN, and has ended once it is answered.

Cancelled, `run` leaves at once, and `stop` goes on from the state that it left: asked, it asks the server to cancel,
again and again until the answer is there, and rolls back; committing, it waits for the answer. GRACE later it cuts the
connection. `lane.py` calls both, as it does those of a unit on a thread (unit.py), and the outcomes are the same.

What cannot happen, and why.
- A cancel that reaches COMMIT, ROLLBACK or the next unit: requests are made in the state `asked` alone, by the one task
  that would send what comes after; the last request has ended before that, which it does when the server has acted on
  it. One that failed on the way may still arrive: it leaves `tainted`, and the connection is closed.
- A commit after a cancel: COMMIT is sent by `run` alone, and `run` has left.
- A commit of what its caller refuses: it looks at the rows before COMMIT is sent, and what it raises is a ROLLBACK.
- A second execution of what may be committed: what is sent again, on this connection or another, had no COMMIT.
- A statement that is taken for prepared and is not: the driver lets the server forget all of them, after a rollback for
  example. The server says so, nothing else has happened, and it is sent once more together with its text.
"""

import contextlib
import enum
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import psycopg
import trio
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq.abc import PGresult

from service.platform.database.pooled import PooledConnection
from service.platform.database.redaction import hide_values
from service.platform.database.sqlstate import is_stale_plan
from service.platform.database.unit import ENDS_NO_TRANSACTION, GRACE, ends_transaction, repeat_until
from service.platform.database.wire import PASSED, READ_ONLY_WORDS, STANDBY, execute, flush, next_result, request_cancel
from service.platform.database.work import BEGIN, COMMIT, DeadAtBegin, StalePlan, StandbyAtBegin, takes_no_writes
from service.platform.errors import DatabaseAway, OutcomeUnknown

NOT_PREPARED = "26000"
WITH_PREPARE = 3  # results: of the preparation, of the statement, and the packet's end

_numbers = itertools.count()

type Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement that is a unit of its own, with `$1`, `$2` for its values; prepared once on each connection.

    PostgreSQL infers the values' types, so where it cannot, the text says them: `$1::timestamptz`. `name` is its name
    in logs and metrics. Raises ValueError for a text that ends its transaction.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        if ends_transaction(self.text):
            raise ValueError(f"{self.name}: {ENDS_NO_TRANSACTION}")


class _State(enum.Enum):
    NEW = enum.auto()
    ASKED = enum.auto()
    ANSWERED = enum.auto()
    COMMITTING = enum.auto()
    ENDED = enum.auto()


class StatementUnit:
    """One run of a Statement on a connection, in place of a Unit."""

    __slots__ = (
        "_pooled", "_results", "_state", "_transactional", "cancels_sent", "committed", "notifications",
        "outcome_unknown", "tainted", "value", "was_cut",
    )  # fmt: skip

    def __init__(self, pooled: PooledConnection, *, transactional: bool) -> None:
        self._pooled = pooled
        self._transactional = transactional
        self._results: list[PGresult] = []  # of what was sent last, as far as they have come
        self._state = _State.NEW
        self.committed = False
        self.outcome_unknown = False
        self.value: Any = None
        self.notifications: frozenset[tuple[str, str]] = frozenset()
        self.cancels_sent = 0
        self.tainted = False  # a cancel request may still be on its way: the connection is not to be used again
        self.was_cut = False

    @property
    def was_silent(self) -> bool:
        """True when it was cut: it waits for nothing but the server."""
        return self.was_cut

    async def run[T](self, statement: Statement, values: Sequence[object], make: Callable[[list[Row]], T]) -> T:
        """Run it and return what `make` makes of its rows before COMMIT; cancelled, leave the rest to `stop`.

        What `make` raises undoes it. One that only reads has no COMMIT.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return await self._run(statement, values, make)
        except psycopg.Error as error:
            hide_values(error)
            await self._clean_up()  # noqa: ASYNC120  it is shielded
            if self._pooled.broken or self._state is _State.COMMITTING:
                self._tell_lost(error)
            if is_stale_plan(error):
                raise StalePlan from error
            raise

    async def _run[T](self, statement: Statement, values: Sequence[object], make: Callable[[list[Row]], T]) -> T:
        transformer = Transformer(self._pooled.dbapi)
        given = transformer.dump_sequence(values, [PyFormat.TEXT] * len(values))
        await self._ask(statement, given)
        error = self._refusal()
        if error is not None and error.sqlstate == NOT_PREPARED and statement in self._pooled.prepared:
            self._pooled.prepared.clear()
            await self._clean_up()
            await self._ask(statement, given)
            error = self._refusal()
        if error is not None:
            if self._transactional and self._results[0].status not in PASSED and takes_no_writes(error):
                raise StandbyAtBegin(STANDBY) from error
            raise error
        if self._transactional and self._pooled.read_only:
            await self._clean_up()
            raise StandbyAtBegin(READ_ONLY_WORDS)
        result = self._results[-2]  # the last is the packet's end
        transformer.set_pgresult(result)
        rows: list[Row] = transformer.load_rows(0, result.ntuples, tuple)
        if not self._transactional:
            await self._clean_up()  # of a text that began something
            return make(rows)
        if self._pooled.usable:
            raise RuntimeError(ENDS_NO_TRANSACTION)
        try:
            value = self.value = make(rows)
        except Exception:
            await self._clean_up()  # noqa: ASYNC120  it is shielded
            raise
        self._state, self._results = _State.COMMITTING, []
        self._pooled.pgconn.send_query(COMMIT)
        await self._finish()
        return value

    async def _ask(self, statement: Statement, given: Sequence[Any]) -> None:
        self._state, self._results = _State.ASKED, []
        pgconn, prepared = self._pooled.pgconn, self._pooled.prepared
        name = prepared.get(statement) or b"statement_%d" % next(_numbers)
        pgconn.enter_pipeline_mode()
        if self._transactional:
            pgconn.send_query_params(BEGIN, None)
        if not self._pooled.prepares:
            pgconn.send_query_params(statement.text.encode(), given)
        else:
            if statement not in prepared:
                pgconn.send_prepare(name, statement.text.encode())
            pgconn.send_query_prepared(name, given)
        pgconn.pipeline_sync()
        await self._read_answer()
        after_begin = self._results[self._transactional :]
        if len(after_begin) == WITH_PREPARE and after_begin[0].status in PASSED:
            prepared[statement] = name

    async def _read_answer(self) -> None:
        """Read the answer to its end; cancelled, it may be called again."""
        pgconn = self._pooled.pgconn
        await flush(pgconn)
        while not self._results or self._results[-1].status != pq.ExecStatus.PIPELINE_SYNC:
            if (result := await next_result(pgconn)) is not None:
                self._results.append(result)
            elif pgconn.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError("the connection was lost")
        pgconn.exit_pipeline_mode()
        self._state = _State.ANSWERED

    def _refusal(self) -> psycopg.Error | None:
        """Return what the server said against what was sent last, if anything."""
        refused = (result for result in self._results if result.status == pq.ExecStatus.FATAL_ERROR)
        result = next(refused, None)
        return psycopg.errors.error_from_result(result) if result is not None else None

    async def _finish(self) -> None:
        """Read the answer to COMMIT; cancelled, it may be called again."""
        await flush(self._pooled.pgconn)
        while (result := await next_result(self._pooled.pgconn)) is not None:
            self._results.append(result)
        if (error := self._refusal()) is not None:
            if self._pooled.usable:  # it was refused; else its outcome is not known
                self._state = _State.ENDED
            raise error
        self._state = _State.ENDED
        self.outcome_unknown = self._pooled.warnings.not_replicated
        self._pooled.warnings.refuse_unreplicated()
        self.committed = True

    def _tell_lost(self, error: psycopg.Error) -> NoReturn:
        if (said := self._refusal()) is not None:  # a server that ends a connection says why
            hide_values(said)
            error = said
        if self._state is _State.COMMITTING:
            raise OutcomeUnknown("the connection was lost while committing: it may be committed or not") from error
        if not self._results or self._results[0].status not in PASSED:
            raise DeadAtBegin from error
        raise DatabaseAway("the connection to PostgreSQL was lost; nothing is committed") from error

    async def _clean_up(self) -> None:
        with trio.move_on_after(GRACE, shield=True) as scope:
            await self._roll_back()
        self.tainted |= scope.cancelled_caught

    async def _roll_back(self) -> None:
        if self._pooled.broken or self._pooled.usable:
            return
        try:
            await execute(self._pooled.pgconn, "ROLLBACK")
        except psycopg.Error:
            self.tainted = True

    async def stop(self) -> None:
        """End the unit, within GRACE as far as it depends on the server; after `run` was cancelled."""
        with trio.move_on_after(GRACE):
            try:
                await self._go_on()
            except (psycopg.Error, OutcomeUnknown):  # COMMIT was refused, has no answer, or one that is worth nothing
                self.outcome_unknown |= self._state is _State.COMMITTING
            return
        self._pooled.cut()
        self.was_cut = True
        self.outcome_unknown = self._state is _State.COMMITTING

    async def _go_on(self) -> None:
        if self._state is _State.COMMITTING:
            await self._finish()
            return
        if self._state is _State.ASKED:
            answered = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(repeat_until, answered, self._cancel_once)
                with contextlib.suppress(psycopg.Error):  # it is broken; there was no COMMIT
                    await self._read_answer()
                answered.set()
        await self._roll_back()

    async def _cancel_once(self) -> None:
        self.cancels_sent += 1
        if not await request_cancel(self._pooled.pgconn):
            self.tainted = True
