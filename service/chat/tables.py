"""The chat's tables. Their migrations are in migrations/versions; a test compares the two."""

import sqlalchemy as sa

from service.platform.database import metadata

CHANNEL = "chat"  # what NOTIFY carries there, `room:seq`, is a hint; the tables are the truth
Name = sa.Text(collation="C")  # compared byte by byte: cheap, and in the same order on every server

# One row. Who has read up to a seq in one epoch knows nothing of another: after a restore the seqs start over.
epoch_table = sa.Table(
    "chat_epoch",
    metadata,
    sa.Column("singleton", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("epoch", sa.Text, nullable=False),
    sa.CheckConstraint("singleton", name="one_row"),
)

# Never deleted: a room that came back would start at 1 again.
room_table = sa.Table(
    "chat_room",
    metadata,
    sa.Column("name", Name, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)

message_table = sa.Table(
    "chat_message",
    metadata,
    sa.Column("room", Name, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", Name, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("subject", sa.Text),  # the author's, as the identity provider has it; without one, the name was claimed
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    sa.UniqueConstraint("room", "id"),
)
