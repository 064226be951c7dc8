"""The only door to SQL: threads, transactions, cancellation, listening, schema state, an embedded server.

Start reading at door.py. What other packages may use is named here.
"""

from service.database.door import Database, open_database
from service.database.embedded import Embedded, open_embedded
from service.database.launch import EmbeddedUnavailable
from service.database.listen import Wakeup, Wakeups
from service.database.migrate import Migrated, MigrationRefused, ServerAway, migrate
from service.database.schema import CodeSchema, SchemaState, find_migrations, metadata
from service.database.statistics import InFlight, Outcome, Statistics, UnitObserver
from service.database.watch import Condition

__all__ = [
    "CodeSchema",
    "Condition",
    "Database",
    "Embedded",
    "EmbeddedUnavailable",
    "InFlight",
    "Migrated",
    "MigrationRefused",
    "Outcome",
    "SchemaState",
    "ServerAway",
    "Statistics",
    "UnitObserver",
    "Wakeup",
    "Wakeups",
    "find_migrations",
    "metadata",
    "migrate",
    "open_database",
    "open_embedded",
]
