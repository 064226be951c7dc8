"""Databases and sessions that are not in UTF-8: text would come back as bytes, or not go in at all."""

from collections.abc import Callable, Iterator

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


def echo(connection: Connection, said: str) -> str:
    return str(connection.execute(text("SELECT CAST(:said AS text)"), {"said": said}).scalar_one())
