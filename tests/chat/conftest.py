"""A migrated database, opened, for each test of the chat that needs SQL."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Connection, create_engine

from service.database import Database, open_database
from tests.database_fixtures import MakeSettings


@pytest.fixture
async def database(make_settings: MakeSettings) -> AsyncIterator[Database]:
    async with open_database(make_settings()) as database:
        yield database


@pytest.fixture
def outside(writable_database_url: str) -> Iterator[Connection]:
    """Yield a connection of somebody else: an operator, or another replica that is slow."""
    engine = create_engine(writable_database_url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
