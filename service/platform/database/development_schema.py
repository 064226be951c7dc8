"""The development database's schema: brought up to date for `service dev`, lent to `alembic`, taken back."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alembic import command
from alembic.util import CommandError

from service.platform.database.development import DATA, DevelopmentDatabaseUnusable, anew, unusable
from service.platform.database.edited import edited_since
from service.platform.database.embedded import open_embedded, running_url
from service.platform.database.migrate import configure, migrate
from service.platform.database.migrator import ServerAway, open_migrator
from service.platform.database.progress import MigrationFailed
from service.platform.database.refusals import MigrationRefused, MigrationsWrong
from service.platform.database.schema import STATE_TABLE, find_migrations
from service.platform.settings import PlatformSettings, SecretURL


def bring_up_to_date(
    settings: PlatformSettings,
    url: str,
    data: Path = DATA,
    *,
    forgetting: bool = False,
    warn: Callable[[str], object] = lambda _: None,
) -> PlatformSettings:
    """Migrate that server's database, and return settings that lead to it. Raises DevelopmentDatabaseUnusable.

    `warn` is told of each migration that was edited after it had been applied.
    """
    settings = _with_url(settings, url)
    try:
        done = migrate(settings, breaking=True, forgetting=forgetting)
        mark = _last_migrated(settings)
    except (MigrationsWrong, ServerAway) as error:  # nothing that other data would mend
        raise DevelopmentDatabaseUnusable(str(error)) from error
    except MigrationFailed as error:
        raise DevelopmentDatabaseUnusable(f"{error}. Mend the migration, if it is new. {anew(data)}") from error
    except MigrationRefused as error:
        raise unusable(data, error) from error
    for revision in edited_since(data, find_migrations(), applied=done.applied, mark=mark):
        warn(
            f"migration {revision} was edited after it had been applied, and is not applied again: to take it back, "
            f"`.venv/bin/alembic downgrade {revision}-1`; the next save applies it as it is then"
        )
    return settings


@contextmanager
def with_development_database(settings: PlatformSettings) -> Iterator[PlatformSettings]:
    """Yield settings with an address: as they are when they have one, else that of the server that runs, else runs one.

    For `alembic`: nothing is migrated.
    """
    if settings.database_url is not None:
        yield settings
        return
    with _mended(DATA):
        if url := running_url(DATA / "postgres"):
            yield _with_url(settings, url)
        else:
            with open_embedded(DATA / "postgres") as server:
                yield _with_url(settings, server.url)


def take_back(settings: PlatformSettings, revision: str, data: Path = DATA) -> None:
    """Undo the migrations after a revision, or all when it is "base", on the development database and nowhere else."""
    migrations = find_migrations()
    with ExitStack() as scope, _mended(data):
        url = running_url(data / "postgres") or scope.enter_context(open_embedded(data / "postgres")).url
        connection = scope.enter_context(open_migrator(_with_url(settings, url)))
        command.downgrade(configure(migrations, connection), revision)


@contextmanager
def _mended(data: Path) -> Iterator[None]:
    """Add what helps to what Alembic says of a database of another history."""
    try:
        yield
    except CommandError as error:
        if "Can't locate revision" not in str(error):
            raise
        raise CommandError(str(unusable(data, error))) from error


def _last_migrated(settings: PlatformSettings) -> str:
    """Return what is another text after each migration that was applied or taken back, whoever did it."""
    with open_migrator(settings) as connection, connection.begin():
        return str(connection.exec_driver_sql(f"SELECT xmin FROM {STATE_TABLE}").scalar())  # noqa: S608  a constant


def _with_url(settings: PlatformSettings, url: str) -> PlatformSettings:
    return settings.model_copy(update={"database_url": SecretURL(url)})
