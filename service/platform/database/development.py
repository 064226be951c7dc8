"""The development database: PostgreSQL's embedded server on `.data`, which `service dev`, `alembic` and people share.

It is nobody else's: a breaking migration is applied as it comes, and what cannot be used may be deleted. Imports no
Alembic, which whoever only runs the server does without: `development_schema` holds what becomes of its tables.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from service.platform.database.address import connect_arguments
from service.platform.database.embedded import DataUnusable, Embedded, open_embedded

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
        raise unusable(data, error) from error


def unusable(data: Path, error: Exception) -> DevelopmentDatabaseUnusable:
    return DevelopmentDatabaseUnusable(
        f"the database in {shlex.quote(str(data))} is not for this code: {error}. {anew(data)}"
    )


def anew(data: Path) -> str:
    begin = f"To begin anew, without what is in it: `rm -r {shlex.quote(str(data))}`"
    return f"{begin}; to keep it: `service dev --data` with another directory"


def for_psql(url: str) -> str:
    """Return an address in the form that psql takes, without a password: psql asks, or reads ~/.pgpass.

    Hosts with a port each, which only SQLAlchemy reads, become a list of hosts and one of ports.
    """
    given = make_url(url)
    arguments = connect_arguments(given) if "host" in given.query else {}
    places = {name: arguments[name] for name in ("host", "port") if str(arguments.get(name, "")).strip(",")}
    secret = [name for name in given.query if "password" in name]
    shown = given.set(drivername="postgresql").update_query_dict(places).difference_update_query(secret)
    # SQLAlchemy writes a blank as a plus behind the question mark, and as a blank ahead of it; libpq knows neither.
    ahead, mark, behind = shown._replace(password=None).render_as_string(hide_password=False).partition("?")
    return ahead.replace(" ", "%20") + mark + behind.replace("+", "%20")
