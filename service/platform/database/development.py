"""The development database: PostgreSQL's embedded server on `.data`, which `service dev`, `alembic` and people share.

It is nobody else's: a breaking migration is applied as it comes, and what cannot be used may be deleted.
"""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alembic import command
from alembic.util import CommandError
from sqlalchemy import make_url

from service.platform.database.embedded import DataUnusable, Embedded, open_embedded, running_url
from service.platform.database.migrate import configure, migrate
from service.platform.database.migrator import ServerAway, open_migrator
from service.platform.database.progress import MigrationFailed
from service.platform.database.refusals import MigrationRefused, MigrationsWrong
from service.platform.database.schema import find_migrations
from service.platform.settings import PlatformSettings, SecretURL

DATA = Path(".data")


class DevelopmentDatabaseUnusable(Exception):
    """What is in the directory is not for this code, or the code not for any; the message says what mends it."""


@contextmanager
def open_development(data: Path = DATA) -> Iterator[Embedded]:
    """Run the server of a directory. Raises DevelopmentDatabaseUnusable."""
    try:
        with open_embedded(data / "postgres") as server:
            yield server
    except DataUnusable as error:
        raise _unusable(data, error) from error


def bring_up_to_date(
    settings: PlatformSettings, url: str, data: Path = DATA, *, forgetting: bool = False
) -> PlatformSettings:
    """Migrate that server's database, and return settings that lead to it. Raises DevelopmentDatabaseUnusable."""
    settings = _with_url(settings, url)
    try:
        migrate(settings, breaking=True, forgetting=forgetting)
    except (MigrationsWrong, ServerAway) as error:  # nothing that other data would mend
        raise DevelopmentDatabaseUnusable(str(error)) from error
    except MigrationFailed as error:
        raise DevelopmentDatabaseUnusable(f"{error}. Mend the migration, if it is new. {_anew(data)}") from error
    except MigrationRefused as error:
        raise _unusable(data, error) from error
    return settings


def _unusable(data: Path, error: Exception) -> DevelopmentDatabaseUnusable:
    return DevelopmentDatabaseUnusable(
        f"the database in {shlex.quote(str(data))} is not for this code: {error}. {_anew(data)}"
    )


def _anew(data: Path) -> str:
    anew = f"To begin anew, without what is in it: `rm -r {shlex.quote(str(data))}`"
    return f"{anew}; to keep it: `service dev --data` with another directory"


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
        raise CommandError(str(_unusable(data, error))) from error


def _with_url(settings: PlatformSettings, url: str) -> PlatformSettings:
    return settings.model_copy(update={"database_url": SecretURL(url)})


def for_psql(url: str) -> str:
    """Return an address in the form that psql takes, without its password: psql asks, or reads ~/.pgpass."""
    shown = make_url(url).set(drivername="postgresql")._replace(password=None)
    return shown.render_as_string(hide_password=False).replace("+", "%20")  # libpq takes a plus as it is
