"""The prompts on the development database, for console.py: psql, and a Python with the service's parts.

It is the database of the settings when they name one, else that of `service dev`, which is started if it does not run.
"""

import code
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from alembic.util import CommandError
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import OperationalError

from deploy.clone import ROOT, Refused
from service.features import FEATURES
from service.platform.database import EmbeddedUnavailable, metadata
from service.platform.database.development import for_psql
from service.platform.database.development_schema import with_development_database
from service.platform.database.launch import find_binaries
from service.platform.database.sqlstate import one_line
from service.platform.feature import catalogue, import_all
from service.platform.settings import PlatformSettings, SettingsError
from service.settings import Settings

BANNER = """Python, with the service's parts: settings, features, metadata, select, text, each table by its name, and
connection, a transaction: connection.commit() keeps what you did."""


def prompt() -> None:
    os.chdir(ROOT)  # .data and .env are there
    prompts = {"psql": run_psql, "python": run_python}
    if sys.argv[1:] not in [[name] for name in prompts]:
        raise Refused("say which prompt: psql or python")
    with development() as settings:
        prompts[sys.argv[1]](settings)


@contextmanager
def development() -> Iterator[PlatformSettings]:
    """Yield settings with the database's address."""
    with ExitStack() as scope:
        try:
            settings, _ = catalogue(Settings, FEATURES).load()
            settings = scope.enter_context(with_development_database(settings))
        except (CommandError, EmbeddedUnavailable, SettingsError) as error:
            raise Refused(str(error)) from error
        yield settings


def url_of(settings: PlatformSettings) -> str:
    url = settings.database_direct_url or settings.database_url
    if url is None:
        raise Refused("no database")
    return url.get_secret_value()


def run_psql(settings: PlatformSettings) -> None:
    psql = find_psql()
    if psql is None:
        raise Refused("psql is not here: install PostgreSQL's client (Debian: apt install postgresql-client)")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is psql's: it cancels a query
    done = subprocess.run([psql, for_psql(url_of(settings))], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def find_psql() -> str | None:
    """Return the machine's psql, or the one that came with the embedded server."""
    if found := shutil.which("psql"):
        return found
    try:
        ours = find_binaries() / "psql"
    except EmbeddedUnavailable:
        return None
    return str(ours) if ours.exists() else None


def run_python(settings: PlatformSettings) -> None:
    import service.platform.verbs.tables  # noqa: F401  here: psql does without

    import_all(FEATURES)  # their tables register with metadata
    engine = create_engine(url_of(settings))
    try:
        connecting = engine.connect()
    except OperationalError as error:
        raise Refused(f"the database cannot be reached: {one_line(error)}") from error
    with connecting as connection:
        names = {"settings": settings, "features": FEATURES, "metadata": metadata, "connection": connection}
        code.interact(BANNER, local={**metadata.tables, **names, "select": select, "text": text}, exitmsg="")
    engine.dispose()
