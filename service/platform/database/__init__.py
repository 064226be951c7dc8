"""The only door to SQL: threads, transactions, cancellation, listening, schema state, an embedded server.

Start reading at door.py. What other packages may use is named here, but for `migrate`, which imports Alembic.
"""

from service.platform.database.door import Database, open_database
from service.platform.database.embedded import Embedded, open_embedded
from service.platform.database.feed import Feed, Follower, in_order, open_feed
from service.platform.database.launch import EmbeddedUnavailable
from service.platform.database.listen import Wakeup, Wakeups
from service.platform.database.migrator import ServerAway
from service.platform.database.notify import notify
from service.platform.database.refusals import MigrationRefused, MigrationsWrong
from service.platform.database.schema import CodeSchema, SchemaState, find_migrations, metadata
from service.platform.database.sqlstate import DATABASE_ERRORS
from service.platform.database.statement import Statement
from service.platform.database.statistics import DatabaseStatistics, InFlight, Outcome, UnitObserver
from service.platform.database.watch import Condition

__all__ = [
    "DATABASE_ERRORS",
    "CodeSchema",
    "Condition",
    "Database",
    "DatabaseStatistics",
    "Embedded",
    "EmbeddedUnavailable",
    "Feed",
    "Follower",
    "InFlight",
    "MigrationRefused",
    "MigrationsWrong",
    "Outcome",
    "SchemaState",
    "ServerAway",
    "Statement",
    "UnitObserver",
    "Wakeup",
    "Wakeups",
    "find_migrations",
    "in_order",
    "metadata",
    "notify",
    "open_database",
    "open_embedded",
    "open_feed",
]
