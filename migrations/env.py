"""How Alembic runs the migrations: for `service migrate`, which brings its connection, and for `alembic` itself."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from service.features import FEATURES
from service.platform.database import EmbeddedUnavailable, MigrationRefused, ServerAway, metadata
from service.platform.database.development_schema import with_development_database
from service.platform.database.migrator import open_migrator
from service.platform.database.record import record_state
from service.platform.database.schema import STATE_TABLE
from service.platform.feature import catalogue, import_all
from service.platform.settings import SettingsError
from service.settings import Settings


def include_name(name: str | None, kind: str, _: Any) -> bool:
    return (kind, name) != ("table", STATE_TABLE)  # ours, not a feature's: autogenerate would drop it


def render_item(kind: str, item: object, autogenerate: Any) -> str | Literal[False]:
    from service.platform.database import enums  # here: who migrates does without

    return enums.render_item(kind, item, autogenerate)


@contextmanager
def connect() -> Iterator[Connection]:
    """Yield the connection that was brought, else one to the database of the settings, else to `service dev`'s own.

    Who brings one only migrates. For `alembic`, which may compare, all tables register with metadata.
    """
    if given := context.config.attributes.get("connection"):
        yield given
        return

    import service.platform.database.enums  # they are compared once it is imported
    import service.platform.verbs.tables  # noqa: F401  here: who migrates does without

    import_all(FEATURES)
    atexit.register(gc.freeze)  # else the end looks for garbage in all of it: a quarter of a command's time
    try:
        settings, _ = catalogue(Settings, FEATURES).load()
        with with_development_database(settings) as settings, open_migrator(settings) as connection:
            yield connection
    except (SettingsError, EmbeddedUnavailable, ServerAway, MigrationRefused) as error:
        raise CommandError(str(error)) from error  # which `alembic` shows as one line


def run_online() -> None:
    with connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            include_name=include_name,
            render_item=render_item,
            on_version_apply=record_state,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()


def run_offline() -> None:
    """Print the SQL instead of running it: for reading, and for its linter."""
    context.configure(
        dialect_name="postgresql", literal_binds=True, on_version_apply=record_state, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
