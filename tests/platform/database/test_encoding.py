"""Databases with ways of their own: text that is not in UTF-8, and times in forms that the driver does not read."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import Connection, make_url, text

from service.platform.database import MigrationRefused, open_database
from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import conninfo

type MakeDatabase = Callable[[str], PlatformSettings]

# The libc locale C goes with every encoding; version 17's own does not.
CREATE = "CREATE DATABASE other ENCODING '{}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"


@pytest.fixture
def make_database(one_server: OwnServer) -> Iterator[MakeDatabase]:
    """Yield a maker of a database of an encoding."""
    with psycopg.connect(conninfo(one_server.url), autocommit=True) as administrator:

        def make(encoding: str) -> PlatformSettings:
            administrator.execute(CREATE.format(encoding).encode())
            administrator.execute("ALTER DATABASE other SET client_encoding = 'LATIN1'")
            url = make_url(one_server.url).set(database="other")
            return PlatformSettings(database_url=url.render_as_string(hide_password=False))

        yield make
        administrator.execute("DROP DATABASE other WITH (FORCE)")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_another_encoding_of_the_database_is_refused_with_what_to_do(
    make_database: MakeDatabase, encoding: str
) -> None:
    settings = make_database(encoding)
    refusal = f"the database other is encoded in {encoding}, and UTF8 is needed: CREATE DATABASE"

    with pytest.raises(MigrationRefused, match=refusal):
        migrate(settings, wait=0)
    async with open_database(settings) as database:
        condition = await database.look()
    assert not condition.reachable
    assert refusal in condition.error


async def test_another_encoding_of_the_session_does_not_matter(make_database: MakeDatabase) -> None:
    async with open_database(make_database("UTF8")) as database:
        assert await database.read(echo, "a snowman ☃") == "a snowman ☃"


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, MDY"])
async def test_how_a_role_writes_times_does_not_matter(make_database: MakeDatabase, style: str) -> None:
    settings = make_database("UTF8")
    with psycopg.connect(settings.database_url.get_secret_value().replace("+psycopg", "")) as administrator:  # type: ignore[union-attr]  # it is set
        administrator.execute(f"ALTER DATABASE other SET DateStyle = {style}".encode())
        administrator.execute(b"ALTER DATABASE other SET IntervalStyle = iso_8601")
    migrate(settings, wait=0)
    async with open_database(settings) as database:
        assert await database.read(times) == (
            datetime(2026, 2, 1, 12, tzinfo=UTC),
            timedelta(hours=25),
            date(2026, 2, 1),
        )


def times(connection: Connection) -> tuple[object, ...]:
    statement = "SELECT timestamptz '2026-02-01T12:00:00Z', interval '25 hours', date '2026-02-01'"
    return tuple(connection.execute(text(statement)).one())


def echo(connection: Connection, said: str) -> str:
    return str(connection.execute(text("SELECT CAST(:said AS text)"), {"said": said}).scalar_one())
