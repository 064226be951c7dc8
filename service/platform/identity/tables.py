"""The tables of identity, all of them small: a secret of the database, and tickets that live for seconds."""

import sqlalchemy as sa

from service.platform.database import metadata

# Random values that all replicas share and nobody else knows, made by the migration.
secret_table = sa.Table(
    "identity_secret",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
