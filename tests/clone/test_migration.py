"""`make migration`: what the models say becomes a migration that says whom it serves, and that was tried."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.platform.database import find_migrations
from service.platform.database.chain import read_chain
from service.platform.database.revisions import newest_served, read_scripts
from service.platform.testing.copies import copy_repository, git, run_in
from service.platform.testing.fixtures import HEAD
from tests.platform.database.migrations import write_migration

WRITE = ("python", "deploy/migration.py")
JOIN = ("python", "deploy/join.py")
TABLE = '''"""Totals."""

from sqlalchemy import Column, Identity, Table, types

from service.platform.database import metadata

total = Table("total", metadata, Column("id", types.BigInteger, Identity(), primary_key=True){more})
'''

MUST_BE_SET = """{settings}

class Settings(Settings):
    partner: str
"""
ELSEWHERE = """
SERVICE_DATABASE_URL=postgresql://nobody@192.0.2.1/elsewhere
SERVICE_DATABASE_DIRECT_URL=postgresql://nobody@192.0.2.1/elsewhere
SERVICE_DATABASE_POOLED=true
SERVICE_DATABASE_PASSWORD_FILE=/no/such/file
"""

BRANCHES = '''"""What the migrations of two branches make."""

from sqlalchemy import Column, Table, types

from service.platform.database import metadata

east, west = (Table(name, metadata, Column("x", types.BigInteger)) for name in ("east", "west"))
'''


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    copy = copy_repository(tmp_path / "clone")
    features = copy / "service" / "features.py"
    features.write_text(features.read_text() + "\nimport service.totals  # noqa: E402, F401, RUF100\n")
    give_table(copy, ', Column("text", types.Text)')
    return copy


def give_table(copy: Path, more: str) -> None:
    (copy / "service" / "totals.py").write_text(TABLE.format(more=more))


def written(copy: Path, name: str) -> str:
    [file] = (copy / "migrations" / "versions").glob(f"*_{name}.py")
    return file.read_text()


def test_no_table_of_the_platform_is_dropped_where_no_feature_needs_it(clone: Path, writable_database_url: str) -> None:
    (clone / "service" / "features.py").write_text("FEATURES = ()\n")
    names = "import service.platform.verbs.tables as one; print(*one.service.platform.jobs.table.metadata.tables)"
    tables = set(run_in(clone, "python", "-c", names).stdout.split())
    done = run_in(clone, "alembic", "check", SERVICE_DATABASE_URL=writable_database_url)

    assert "job" in tables
    assert not tables & set(re.findall(r"remove_table', Table\('(\w+)'", done.stdout + done.stderr))


@pytest.mark.ci
def test_an_addition_serves_the_code_that_runs_and_a_drop_says_what_stops(clone: Path, server_url: str) -> None:
    added = run_in(clone, *WRITE, "add_total", TEST_DATABASE_URL=server_url)
    assert added.returncode == 0, added.stdout + added.stderr
    assert "all well" in added.stdout
    if HEAD is not None:
        served = newest_served(read_scripts(find_migrations()), [HEAD])
        assert f'serves_from = "{served}"' in written(clone, "add_total")

    again = run_in(clone, *WRITE, "add_total", TEST_DATABASE_URL=server_url)
    assert (again.returncode, "change a table first" in again.stderr) == (1, True)
    assert again.stderr.rstrip().endswith(" .venv/bin/alembic revision -m 'add total'")

    give_table(clone, "")
    asked = run_in(clone, *WRITE, "drop_text", TEST_DATABASE_URL=server_url)
    assert asked.returncode == 1
    assert "drop_column: does the code that runs now do without?" in asked.stdout
    assert "ban-drop-column" in asked.stderr

    [without_a_reason] = (clone / "migrations" / "versions").glob("*_drop_text.py")
    without_a_reason.unlink()
    dropped = run_in(clone, *WRITE, "drop_text", "--breaking", "reads of total.text", TEST_DATABASE_URL=server_url)
    assert dropped.returncode == 0, dropped.stdout + dropped.stderr
    assert 'breaking = "reads of total.text"' in written(clone, "drop_text")
    assert "serves_from = revision" in written(clone, "drop_text")


def test_it_asks_nothing_of_the_settings_which_are_about_another_database(clone: Path, server_url: str) -> None:
    """Neither for one that must be set nor for an address, in `.env` or the environment."""
    settings = clone / "service" / "settings.py"
    settings.write_text(MUST_BE_SET.format(settings=settings.read_text()))
    (clone / ".env").write_text(ELSEWHERE)
    write = "from deploy.migration import write; write('add_total')"
    done = run_in(clone, "python", "-c", write, TEST_DATABASE_URL=server_url, SERVICE_MIGRATION_GRANT_TO="no-such-role")

    assert done.returncode == 0, done.stdout + done.stderr
    assert '"total"' in written(clone, "add_total")


@pytest.mark.parametrize("name", ["", "Add", "add-total", "add total"])
def test_a_bad_name_is_refused_in_a_sentence(clone: Path, name: str) -> None:
    done = run_in(clone, *WRITE, name)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "make migration NAME=add_total" in done.stderr


@pytest.fixture
def two_heads(clone: Path) -> Path:
    """Return a clone in which two branches have met: one serves all code, the other only its own."""
    for name, breaking in (("east", None), ("west", "for a reason")):
        serves_from = name if breaking or HEAD is None else newest_served(read_scripts(find_migrations()), [HEAD])
        up = f"CREATE TABLE {name} (x bigint)"
        write_migration(
            clone / "migrations",
            name,
            HEAD,
            serves_from=serves_from,
            breaking=breaking,
            up=up,
            back=f"DROP TABLE {name}",
        )
    return clone


def test_two_heads_are_a_sentence_with_the_command_that_joins_them(two_heads: Path) -> None:
    before = git(two_heads, "status", "--porcelain")
    done = run_in(two_heads, *WRITE, "add_total")

    assert done.returncode == 1
    assert "the migrations have 2 heads, east and west: `make join` writes one after them" in done.stderr
    assert git(two_heads, "status", "--porcelain") == before


@pytest.mark.ci
def test_two_heads_are_joined_and_the_join_is_tried(two_heads: Path, server_url: str) -> None:
    (two_heads / "service" / "totals.py").write_text(BRANCHES)
    joined = run_in(two_heads, *JOIN, TEST_DATABASE_URL=server_url)
    assert joined.returncode == 0, joined.stdout + joined.stderr
    assert "all well" in joined.stdout
    assert "down_revision = ('east', 'west')".replace("'", '"') in written(two_heads, "join_east_and_west")
    assert 'serves_from = "west"' in written(two_heads, "join_east_and_west")
    assert read_chain(two_heads / "migrations") is not None  # so that a start needs no Alembic, as before

    again = run_in(two_heads, *JOIN)
    assert (again.returncode, again.stderr) == (
        1,
        "nothing was changed: the migrations have one head: there is nothing to join\n",
    )


def test_of_two_commands_at_once_one_is_refused(two_heads: Path) -> None:
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: run_in(two_heads, *JOIN), range(2)))

    refused = "nothing was changed: another command is changing this clone: wait until it has ended\n"
    assert refused in [one.stderr for one in done]
    assert "Traceback" not in "".join(one.stderr for one in done)
    assert written(two_heads, "join_east_and_west")
