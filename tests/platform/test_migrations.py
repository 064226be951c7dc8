"""The migrations of this service: as the models say, safe to apply while it runs, and each with its way back.

A database of every earlier release, with rows in it, comes to the head, and what each release's code sees is told.
"""

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

import service.platform.database.enums  # they are compared once it is imported
import service.platform.verbs.tables  # noqa: F401  they register with metadata
from service.features import FEATURES
from service.platform.database import MigrationRefused, metadata
from service.platform.database.migrate import configure, migrate
from service.platform.database.revisions import read_scripts
from service.platform.database.schema import STATE_TABLE, find_migrations
from service.platform.feature import import_all
from tests.platform.upgrades import fill_database, pending_after, settings_for, upgrade_problems

import_all(FEATURES)  # so do theirs
MIGRATIONS = find_migrations()
SCRIPTS = read_scripts(MIGRATIONS)
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()]
SQUAWK = Path(sys.executable).with_name("squawk")

# Rules of squawk that do not apply, each with its reason.
NOT_OURS = (
    "require-lock-timeout",  # `service migrate` sets it for the session, once it holds the migrations' lock
    "require-statement-timeout",  # a migration may take long; what it may not do is hold a lock that others wait for
    "prefer-robust-stmts",  # each migration is one transaction: a failed one leaves nothing to be robust against
    "require-timeout-settings",  # the same two
)


def drift(url: str) -> list[object]:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, _: (kind, name) != ("table", STATE_TABLE)}
        )
        return list(compare_metadata(context, metadata))


def lint(file: Path, sql: str, meant: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    file.write_text(sql)
    arguments = ["--pg-version", "15", "--exclude", ",".join((*NOT_OURS, *meant)), str(file)]
    return subprocess.run([SQUAWK, *arguments], capture_output=True, text=True, check=False)


def lint_migration(migrations: Path, revision: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Lint the SQL of one migration, without the rules that it says to break on purpose."""
    module = read_scripts(migrations).get_revision(revision).module
    sql = StringIO()
    as_text = {"as_sql": True, "output_buffer": sql, "literal_binds": True, "transaction_per_migration": True}
    context = MigrationContext.configure(dialect_name="postgresql", opts=as_text)
    with Operations.context(context), context.begin_transaction(_per_migration=True):
        module.upgrade()
    assert sql.getvalue().startswith("BEGIN;")
    return lint(directory / f"{revision}.sql", sql.getvalue(), getattr(module, "meant", ()))


def test_the_migrations_make_what_the_models_say(database_url: str) -> None:
    assert not drift(database_url), "run: make migration NAME=…"


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_sql_of_a_migration_is_safe_to_apply(revision: str, tmp_path: Path) -> None:
    done = lint_migration(MIGRATIONS, revision, tmp_path)

    advice = "docs/evolve-a-table.md has the steps; a drop that is meant says so: meant = ('ban-drop-...',)"
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{advice}"


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_database_of_each_release_comes_to_the_head(revision: str, empty_database_url: str, tmp_path: Path) -> None:
    settings = settings_for(empty_database_url)
    fill_database(empty_database_url, MIGRATIONS, revision, tmp_path)
    pending = pending_after(MIGRATIONS, revision)
    if any(script.module.breaking for script in pending):
        with pytest.raises(MigrationRefused, match="--breaking"):
            migrate(settings)
        migrate(settings, breaking=True)
    else:
        migrate(settings)

    assert drift(empty_database_url) == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_code_of_each_release_works_on_every_later_schema_that_serves_it(
    revision: str, empty_database_url: str, tmp_path: Path
) -> None:
    fill_database(empty_database_url, MIGRATIONS, revision, tmp_path)

    assert list(upgrade_problems(empty_database_url, MIGRATIONS, revision, tmp_path)) == []


def test_all_migrations_go_up_down_and_up(empty_database_url: str) -> None:
    settings = settings_for(empty_database_url)
    migrate(settings)
    with create_engine(empty_database_url, poolclass=NullPool).connect() as connection:
        command.downgrade(configure(MIGRATIONS, connection), "base")

    assert set(migrate(settings).applied) == set(REVISIONS)
    assert drift(empty_database_url) == []


def test_a_dangerous_migration_is_found(tmp_path: Path) -> None:
    done = lint(
        tmp_path / "bad.sql",
        "BEGIN; ALTER TABLE thing ADD COLUMN x integer NOT NULL; CREATE INDEX i ON thing (at); COMMIT;",
    )

    assert done.returncode == 1
    assert "adding-required-field" in done.stdout


def test_every_table_belongs_to_a_migration(database_url: str) -> None:
    engine = create_engine(database_url)
    tables = set(inspect(engine).get_table_names())
    engine.dispose()

    assert tables - {"alembic_version", STATE_TABLE} == set(metadata.tables)
