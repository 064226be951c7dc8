"""The one table of jobs. Its migration is in migrations/versions; a test compares the two.

Each index is partial, so that a finished job costs the claims of others nothing, however many there are.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from service.platform.database import metadata

IDLE = 4.0  # seconds between two looks at the table when nothing is heard
CHANNEL = "job"  # a notification says that something may be due; the table is the truth
LATER = "later"  # its payload where that is in a moment, and not yet
Name = sa.Text(collation="C")

job_table = sa.Table(
    "job",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("kind", Name, nullable=False),
    sa.Column("arguments", JSONB, nullable=False),
    sa.Column("state", Name, nullable=False, server_default="waiting"),
    sa.Column("priority", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("run_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("claim", sa.BigInteger, nullable=False, server_default="0"),  # rises with each claim: the fence
    sa.Column("failures", sa.BigInteger, nullable=False, server_default="0"),  # attempts that were spent
    sa.Column("leased_until", sa.TIMESTAMP(timezone=True)),
    sa.Column("worker", sa.Text),
    sa.Column("key", Name),  # at most one of a kind waits under a key
    sa.Column("turn", sa.TIMESTAMP(timezone=True)),  # of a schedule
    sa.Column("error", sa.Text),  # of the latest failure
    sa.Column("trace", sa.Text),  # traceparent of who enqueued it
    sa.Column("enqueued_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
    sa.CheckConstraint("state IN ('waiting', 'running', 'done', 'dead', 'discarded')", name="state"),
    sa.CheckConstraint("priority BETWEEN -1 AND 1", name="priority"),
    sa.CheckConstraint("(state = 'running') = (leased_until IS NOT NULL)", name="lease"),
    sa.CheckConstraint("(state IN ('done', 'dead', 'discarded')) = (finished_at IS NOT NULL)", name="finished"),
)
sa.Index(
    "ix_job_waiting",
    job_table.c.kind,
    job_table.c.priority,
    job_table.c.run_at,
    job_table.c.id,
    postgresql_where=job_table.c.state == sa.literal_column("'waiting'"),
)
sa.Index("ix_job_running", job_table.c.kind, postgresql_where=job_table.c.state == sa.literal_column("'running'"))
sa.Index(
    "ix_job_finished",
    job_table.c.finished_at,
    postgresql_where=job_table.c.state.in_([sa.literal_column("'done'"), sa.literal_column("'discarded'")]),
)
sa.Index("ix_job_dead", job_table.c.kind, postgresql_where=job_table.c.state == sa.literal_column("'dead'"))
sa.Index(
    "uq_job_key",
    job_table.c.kind,
    job_table.c.key,
    unique=True,
    postgresql_where=sa.and_(job_table.c.state == sa.literal_column("'waiting'"), job_table.c.key.is_not(None)),
)
sa.Index(
    "uq_job_turn",
    job_table.c.kind,
    job_table.c.turn,
    unique=True,
    postgresql_where=job_table.c.turn.is_not(None),
)
