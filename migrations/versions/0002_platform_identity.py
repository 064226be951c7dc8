"""The platform's tables of who is asking, and of answers that are repeated under their Idempotency-Key."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "platform_identity"
down_revision = "platform_jobs"
branch_labels = None
depends_on = None

serves_from = "platform_jobs"
breaking = None


def upgrade() -> None:
    op.create_table(
        "identity_secret",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    # made by the server: 244 random bits, one value per database, however often this file is run or printed as SQL
    op.execute(
        "INSERT INTO identity_secret (name, value) VALUES ('log', gen_random_uuid()::text || gen_random_uuid()::text)"
    )

    op.create_table(
        "identity_ticket",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("caller", postgresql.JSONB(), nullable=False),
        sa.Column("made", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("ix_identity_ticket_made", "identity_ticket", ["made"])
    op.create_table(
        "identity_session",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("sid", sa.Text(), nullable=True),
        sa.Column("caller", postgresql.JSONB(), nullable=False),
        sa.Column("made", sa.TIMESTAMP(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.Column("expires", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    for column in ("subject", "sid", "expires"):
        op.create_index(f"ix_identity_session_{column}", "identity_session", [column])
    op.create_table(
        "idempotency_answer",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_idempotency_answer_at", "idempotency_answer", ["at"])


def downgrade() -> None:
    op.drop_table("idempotency_answer")
    op.drop_table("identity_session")
    op.drop_table("identity_ticket")
    op.drop_table("identity_secret")
