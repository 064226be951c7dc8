"""The chat's tables, and the database's epoch."""

import sqlalchemy as sa
from alembic import op

revision = "chat"
down_revision = "platform_identity"
branch_labels = None
depends_on = None

serves_from = "platform_jobs"
breaking = None


def upgrade() -> None:
    op.create_table(
        "chat_epoch",
        sa.Column("singleton", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.CheckConstraint("singleton", name="one_row"),
        sa.PrimaryKeyConstraint("singleton"),
    )
    # made by the server: one value per database, however often this file is run or printed as SQL
    op.execute("INSERT INTO chat_epoch (epoch) VALUES (replace(gen_random_uuid()::text, '-', ''))")
    op.create_table(
        "chat_room",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    # seq changes with each batch: with free space on its page no index has to follow (a HOT update)
    op.execute("ALTER TABLE chat_room SET (fillfactor = 50)")
    op.create_table(
        "chat_message",
        sa.Column("room", sa.Text(collation="C"), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("at", sa.TIMESTAMP(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("room", "seq"),
        sa.UniqueConstraint("room", "id"),
    )


def downgrade() -> None:
    op.drop_table("chat_message")
    op.drop_table("chat_room")
    op.drop_table("chat_epoch")
