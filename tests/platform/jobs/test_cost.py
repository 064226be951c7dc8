"""What jobs cost: plans with many that wait and that are finished, and the queries of a worker with nothing to do."""

import json
import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import trio
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from service.platform.database import open_database
from service.platform.jobs import open_jobs, statistics, store, turns
from service.platform.jobs.enqueue import _NEWEST_TURN
from service.platform.jobs.upkeep import _SWEEP
from service.platform.telemetry import Metrics
from service.platform.testing.fixtures import MakeSettings
from tests.platform.database.observer import conninfo
from tests.platform.jobs import kinds

WAITING, FINISHED = 100_000, 1_000_000
FILL = """
    INSERT INTO job (kind, arguments, state, run_at, finished_at)
    SELECT CASE WHEN n % 2 = 0 THEN 'note' ELSE 'tell' END, '{"number": 1}', 'done', now(), now() - n * interval '1 ms'
    FROM generate_series(1, %s) n;
    INSERT INTO job (kind, arguments, run_at)
    SELECT CASE WHEN n % 2 = 0 THEN 'note' ELSE 'tell' END, '{"number": 1}', now() + (n % 100 - 50) * interval '1 min'
    FROM generate_series(1, %s) n;
    ANALYZE job"""
dialect: Any = PGDialect_psycopg  # its constructor has no types
DIALECT = dialect()
STATEMENTS = {
    "claim": store._claim(64), "look": store._OUTLOOK, "lost": store._LOST, "sweep": _SWEEP,
    "extend": store._EXTEND, "held": store._STILL_HELD, "finish": store._FINISH, "finish many": store._FINISH_MANY,
    "fail": store._END, "failed": store._ENDED, "turn": _NEWEST_TURN, "still due": store._STILL_DUE,
    "unknown": store._UNKNOWN, "rescued again": statistics._RESCUED_AGAIN, "missed": turns._NEWEST_DUE,
}  # fmt: skip
VALUES = {
    "kinds": ["note", "tell"], "rooms": [40, 40], "most": 10, "worker": "me", "lease": 3.0, "age": 3600.0,
    "ids": [1, 2], "claims": [1, 1], "workers": ["me", "me"], "id": 1, "claim": 1, "error": "no", "retries": 3,
    "pause": 1.0, "kind": "note", "spent": 1, "failures": 0, "until": math.inf, "turn": datetime.now(UTC),
    "lately": statistics.LATELY, "apart": store.APART,
}  # fmt: skip


def plan(connection: psycopg.Connection[Any], statement: str) -> dict[str, Any]:
    compiled = STATEMENTS[statement].compile(dialect=DIALECT)
    given = {name: VALUES[name] for name in compiled.params}
    row = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}".encode(), given).fetchone()
    assert row is not None
    found: dict[str, Any] = row[0][0]
    return found


def scans(node: dict[str, Any]) -> list[str]:
    """Return how the plan looks at the table of jobs."""
    own = [node["Node Type"]] if node.get("Relation Name") == "job" and "Scan" in node["Node Type"] else []
    return own + [scan for child in node.get("Plans", []) for scan in scans(child)]


@pytest.mark.drill
def test_many_that_wait_and_many_that_are_finished_cost_a_claim_nothing(writable_database_url: str) -> None:
    with psycopg.connect(conninfo(writable_database_url)) as connection:
        connection.execute(FILL.replace("%s", str(FINISHED), 1).replace("%s", str(WAITING)).encode())
        for statement in STATEMENTS:
            found = plan(connection, statement)
            print(f"{statement}: {found['Execution Time']:.2f} ms, {sorted(set(scans(found['Plan'])))}")

            assert "Seq Scan" not in json.dumps(found), statement
        connection.rollback()


async def test_a_worker_with_nothing_to_do_asks_little(make_settings: MakeSettings) -> None:
    asked: Counter[str] = Counter()

    def count(unit: str, *_: object) -> None:
        asked[unit] += 1

    with trio.fail_after(60):
        async with (
            open_database(make_settings(), on_unit=count) as database,
            open_jobs(database, (kinds.note, kinds.tell), make_settings(), Metrics()),
        ):
            await trio.sleep(1)
            asked.clear()
            await trio.sleep(15)

    print({unit: f"{4 * count} a minute" for unit, count in asked.items()})
    assert asked["look"] <= 15 / 3 + 1
    assert sum(asked.values()) <= 8
