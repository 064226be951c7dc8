"""The chat's questions are index scans where there is much to scan: else history would make joins slower."""

from collections.abc import Awaitable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine

from service.chat import store
from service.platform.database import Statement, open_database
from service.platform.testing.fixtures import MakeSettings
from tests.chat import plans
from tests.chat.worlds import note
from tests.platform.database.observer import conninfo

ROOMS, EACH = 300, 200
EMPTY = 20_000  # rooms besides


@pytest.fixture
def connection(writable_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    url = conninfo(writable_database_url)
    plans.fill(url, prefix="plan-", rooms=ROOMS, first=1, last=EACH)
    plans.fill(url, prefix="empty-", rooms=EMPTY, first=1, last=0)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def test_pages_joins_and_resumes_read_by_an_index(connection: psycopg.Connection[Any]) -> None:
    for name, ask in plans.questions("plan-7", EACH).items():
        found = list(plans.scans(connection, ask))

        assert {table for table, _, _ in found} & plans.TABLES, name
        assert all(kind in plans.BY_INDEX for _, kind, _ in found), (name, found)
        assert {often for _, _, often in found} <= {0, 1}, (name, found)


async def test_the_plan_of_one_rooms_page_is_kept(make_settings: MakeSettings, connection: object) -> None:
    asked = {name: ask for name, ask in plans.questions("plan-7", EACH).items() if "gone on" not in name}
    kept = Statement(
        "kept", "SELECT generic_plans FROM pg_prepared_statements WHERE position($1::text IN statement) > 0"
    )
    for name, ask in asked.items():
        async with open_database(make_settings(database_connections=1)) as database:
            for _ in range(20):  # it is prepared at once, and PostgreSQL plans it five times
                await ask(database)
            assert await database.fetch(kept, "LATERAL") == [(15,)], name


@pytest.mark.parametrize("rooms", [1, 3])
def test_the_plans_of_a_commit_are_kept_and_go_by_an_index_from_the_first_message_on(
    writable_database_url: str, rooms: int
) -> None:
    """A plan made when there are ten messages is used for thousands, until PostgreSQL counts them."""
    names = [f"fresh-{number}" for number in range(rooms)]
    engine = create_engine(writable_database_url)
    with engine.begin() as connection:
        for name in names:
            store.append_waiting(connection, [note("first", room=name)], lock_timeout=1)
    with engine.begin() as connection:
        for number in range(20):
            appended = store.append(connection, [note(f"next {number}", room=name) for name in names])
            assert len(appended.messages) == rooms
        kept = connection.execute(
            sa.text("SELECT generic_plans FROM pg_prepared_statements WHERE statement LIKE '%SKIP LOCKED%'")
        ).scalar_one()
        scanned = sa.text("SELECT relname, seq_scan FROM pg_stat_xact_user_tables WHERE relname LIKE 'chat_%'")
        scans = {table: often for table, often in connection.execute(scanned) if table in plans.TABLES}
    engine.dispose()

    assert kept == 10
    assert scans == dict.fromkeys(plans.TABLES, 0)


def test_a_scan_of_the_whole_table_is_seen(connection: psycopg.Connection[Any]) -> None:
    scan = Statement("scan", "SELECT count(*) FROM chat_message WHERE text LIKE $1")

    def ask(asker: plans.Asker) -> Awaitable[object]:
        return asker.fetch(scan, "%x%")

    assert ("chat_message", "Seq Scan") in {(table, kind) for table, kind, _ in plans.scans(connection, ask)}
