"""The commands of docs/backup.md, run: a restored database is one that the service serves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, inspect, make_url

from service.platform.database.launch import find_binaries
from service.platform.testing.copies import ROOT
from service.platform.testing.fixtures import fresh_database
from service.platform.testing.processes import environment
from tests.platform.database.observer import conninfo

BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "backup.md").read_text(), re.MULTILINE | re.DOTALL)
SERVICE = f"{sys.executable} -m service"


def run_page(block: str, directory: Path, url: str) -> None:
    """Run a block of the page for a database, with PostgreSQL's own programs."""
    plain = make_url(url).difference_update_query(["options"])  # as the service takes it, driver and all
    given = environment(database_url=plain.render_as_string(hide_password=False)) | {
        "PATH": f"{find_binaries()}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    script = re.sub(r"(^|\$\()service ", rf"\1{SERVICE} ", block, flags=re.MULTILINE)
    done = subprocess.run(
        ["sh", "-euc", script], cwd=directory, env=given, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def enqueue_one(url: str) -> int:
    with psycopg.connect(conninfo(url)) as connection:
        row = connection.execute("INSERT INTO job (kind, arguments) VALUES ('any', '{}') RETURNING id").fetchone()
    assert row is not None
    return int(row[0])


def skip_without_programs(url: str) -> None:
    with psycopg.connect(conninfo(url)) as connection:
        version = connection.info.server_version // 10_000
    program = find_binaries() / "pg_dump"
    if not program.exists() or f" {version}." not in subprocess.check_output([program, "--version"], text=True):
        pytest.skip(f"needs pg_dump and pg_restore of the server's version, {version}")


def test_what_was_dumped_is_restored_with_its_schema_state(
    tmp_path: Path, database_url: str, empty_database_url: str
) -> None:
    skip_without_programs(database_url)
    run_page(BLOCKS[0], tmp_path, database_url)
    run_page(BLOCKS[1], tmp_path, empty_database_url)

    assert tables(empty_database_url) == tables(database_url)


def test_a_server_that_was_moved_to_goes_on_where_the_sequences_were(
    tmp_path: Path, writable_database_url: str, server_url: str, template: str
) -> None:
    skip_without_programs(writable_database_url)
    with fresh_database(server_url, template) as other:
        assert [enqueue_one(writable_database_url) for _ in range(3)] == [1, 2, 3]
        run_page(BLOCKS[3], tmp_path, writable_database_url)
        run_page(BLOCKS[4], tmp_path, other)

        assert enqueue_one(other) == 4
