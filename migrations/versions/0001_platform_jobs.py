"""The table of jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "platform_jobs"
down_revision = None
branch_labels = None
depends_on = None

serves_from = "platform_jobs"
breaking = None


def upgrade() -> None:
    text = sa.Text(collation="C")
    op.create_table(
        "job",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("arguments", JSONB(), nullable=False),
        sa.Column("state", text, server_default="waiting", nullable=False),
        sa.Column("priority", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("run_at", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("claim", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("leased_until", sa.TIMESTAMP(timezone=True)),
        sa.Column("worker", sa.Text()),
        sa.Column("key", text),
        sa.Column("turn", sa.TIMESTAMP(timezone=True)),
        sa.Column("error", sa.Text()),
        sa.Column("trace", sa.Text()),
        sa.Column("enqueued_at", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
        sa.CheckConstraint("state IN ('waiting', 'running', 'done', 'dead', 'discarded')", name="state"),
        sa.CheckConstraint("priority BETWEEN -1 AND 1", name="priority"),
        sa.CheckConstraint("(state = 'running') = (leased_until IS NOT NULL)", name="lease"),
        sa.CheckConstraint("(state IN ('done', 'dead', 'discarded')) = (finished_at IS NOT NULL)", name="finished"),
        sa.PrimaryKeyConstraint("id"),
    )
    # a row changes a few times in its short life: with free space on its page fewer indexes have to follow
    op.execute("ALTER TABLE job SET (fillfactor = 70)")
    # and most of the table is new each day: what is dead is cleared away, and counted, before it slows a claim
    op.execute("ALTER TABLE job SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)")
    waiting, running = sa.text("state = 'waiting'"), sa.text("state = 'running'")
    op.create_index("ix_job_waiting", "job", ["kind", "priority", "run_at", "id"], postgresql_where=waiting)
    op.create_index("ix_job_running", "job", ["kind"], postgresql_where=running)
    finished = sa.text("state IN ('done', 'discarded')")
    op.create_index("ix_job_finished", "job", ["finished_at"], postgresql_where=finished)
    op.create_index("ix_job_dead", "job", ["kind"], postgresql_where=sa.text("state = 'dead'"))
    keyed = sa.text("state = 'waiting' AND key IS NOT NULL")
    op.create_index("uq_job_key", "job", ["kind", "key"], unique=True, postgresql_where=keyed)
    turned = sa.text("turn IS NOT NULL")
    op.create_index("uq_job_turn", "job", ["kind", "turn"], unique=True, postgresql_where=turned)


def downgrade() -> None:
    op.drop_table("job")
