"""The tables of identity, all small: a secret of the database, tickets that live for seconds, sessions of browsers."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from service.platform.database import metadata

# Random values that all replicas share and nobody else knows, made by the migration.
secret_table = sa.Table(
    "identity_secret",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

# What opens one websocket, once. Only its hash is here: whoever reads the table cannot use it.
ticket_table = sa.Table(
    "identity_ticket",
    metadata,
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    sa.Column("caller", postgresql.JSONB, nullable=False),
    sa.Column("made", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now(), index=True),
)

session_table = sa.Table(
    "identity_session",
    metadata,
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    sa.Column("subject", sa.Text, nullable=False, index=True),
    sa.Column("sid", sa.Text, index=True),  # the provider's own name for it
    sa.Column("caller", postgresql.JSONB, nullable=False),
    sa.Column("made", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    sa.Column("expires", sa.TIMESTAMP(timezone=True), nullable=False, index=True),
)
