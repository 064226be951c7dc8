"""The chat's questions are index scans where there is much to scan: else history would make joins slower."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine

from tests.chat import plans
from tests.platform.database.observer import conninfo

ROOMS, EACH = 300, 200
EMPTY = 20_000  # rooms besides


@pytest.fixture
def engine(writable_database_url: str) -> Iterator[sa.Engine]:
    plans.fill(conninfo(writable_database_url), prefix="plan-", rooms=ROOMS, first=1, last=EACH)
    plans.fill(conninfo(writable_database_url), prefix="empty-", rooms=EMPTY, first=1, last=0)
    engine = create_engine(writable_database_url)
    yield engine
    engine.dispose()


def test_pages_joins_and_resumes_read_by_an_index(engine: sa.Engine) -> None:
    for name, ask in plans.questions("plan-7", EACH).items():
        found = list(plans.scans(engine, ask))

        assert {table for table, _, _ in found} & plans.TABLES, name
        assert all(kind in plans.BY_INDEX for _, kind, _ in found), (name, found)
        assert {often for _, _, often in found} <= {0, 1}, (name, found)


def test_the_plan_of_one_rooms_page_is_kept(engine: sa.Engine) -> None:
    asked = {name: ask for name, ask in plans.questions("plan-7", EACH).items() if "gone on" not in name}
    for name, ask in asked.items():
        with engine.connect() as connection:
            for _ in range(20):  # psycopg prepares what was asked five times, and PostgreSQL plans it five times more
                ask(connection)
            kept = connection.execute(sa.text("SELECT generic_plans FROM pg_prepared_statements")).scalars().all()
            connection.detach()  # the next one's statements are counted on a connection of its own
        assert kept == [10], name


def test_a_scan_of_the_whole_table_is_seen(engine: sa.Engine) -> None:
    def ask(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT count(*) FROM chat_message WHERE text LIKE :text"), {"text": "%x%"})

    assert ("chat_message", "Seq Scan") in {(table, kind) for table, kind, _ in plans.scans(engine, ask)}
