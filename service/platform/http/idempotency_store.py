"""The answers that `Idempotency-Key` repeats: their table, and its SQL."""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from service.platform.database import metadata
from service.platform.errors import Conflict, Unprocessable

KEPT_HOURS = 24
MOST_DELETED = 1_000  # rows of one transaction
REASON = "idempotency"

answer_table = sa.Table(
    "idempotency_answer",
    metadata,
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now(), index=True),
)
_OLD = answer_table.c.at < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, KEPT_HOURS)


class BeingAnswered(Conflict):
    """Another request of the key is being answered: the one conflict after which the same is to be sent again."""

    reason = REASON
    retry_after = 1


@dataclass(frozen=True, slots=True)
class Once:
    """A key and the hash of its request."""

    key: bytes
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer; `body` is JSON."""

    status: int
    body: str
    replayed: bool = False


def answer_once(connection: Connection, *, once: Once, work: Callable[[Connection], Kept]) -> Kept:
    """Return the answer that a key has, or else the one that `work` makes, which is kept with what it did.

    Raises BeingAnswered while another transaction works for the key, Unprocessable when it belongs to another request.
    """
    number = int.from_bytes(once.key[:8], signed=True)
    if not connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(number))).scalar_one():
        told = "Idempotency-Key: another request with this key is being answered; send it again in a moment"
        raise BeingAnswered(told)
    found = connection.execute(sa.select(answer_table).where(answer_table.c.key == once.key, ~_OLD)).one_or_none()
    if found is not None:
        if found.fingerprint != once.fingerprint:
            told = "Idempotency-Key: was used for another request; take a new one for this"
            raise Unprocessable(told, reason=REASON)
        return Kept(found.status, found.body, replayed=True)
    kept = work(connection)
    connection.execute(sa.delete(answer_table).where(answer_table.c.key == once.key))  # too old, and not yet swept
    connection.execute(
        sa.insert(answer_table).values(key=once.key, fingerprint=once.fingerprint, status=kept.status, body=kept.body)
    )
    return kept


def delete_old_answers(connection: Connection) -> int:
    """Delete answers whose time is over, MOST_DELETED at most; return how many."""
    old = sa.select(answer_table.c.key).where(_OLD).limit(MOST_DELETED).with_for_update(skip_locked=True)
    return connection.execute(sa.delete(answer_table).where(answer_table.c.key.in_(old))).rowcount
