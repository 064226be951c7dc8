"""The platform's table of answers that are repeated under their Idempotency-Key."""

import sqlalchemy as sa
from alembic import op

revision = "platform_idempotency"
down_revision = "platform_identity"
branch_labels = None
depends_on = None

serves_from = "platform_identity"
breaking = None


def upgrade() -> None:
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
