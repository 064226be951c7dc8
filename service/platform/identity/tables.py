"""The tables of identity, both small: a secret of the database, and tickets that live for seconds."""

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
