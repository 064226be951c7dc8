"""What identity reads and writes: plain functions of a connection."""

import sqlalchemy as sa
from sqlalchemy import Connection

from service.platform.identity.tables import secret_table


def select_log_key(connection: Connection) -> bytes:
    """Return the key of the hashes that the log has in place of subjects."""
    value: str = connection.execute(sa.select(secret_table.c.value).where(secret_table.c.name == "log")).scalar_one()
    return value.encode()
