"""The migrations of this service: as the models say, safe to apply while it runs, and each with its way back."""

import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

import service.features  # noqa: F401  the features' tables register with metadata
from service.platform.database import metadata
from service.platform.database.schema import STATE_TABLE, find_migrations

MIGRATIONS = find_migrations()
SQUAWK = Path(sys.executable).with_name("squawk")

# Rules of squawk that do not apply, each with its reason.
NOT_OURS = (
    "require-lock-timeout",  # `service migrate` sets it for the session, once it holds the migrations' lock
    "require-statement-timeout",  # a migration may take long; what it may not do is hold a lock that others wait for
    "prefer-robust-stmts",  # each migration is one transaction: a failed one leaves nothing to be robust against
    "require-timeout-settings",  # the same two
)


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


def revisions() -> list[str]:
    return [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]


def lint(file: Path, sql: str) -> subprocess.CompletedProcess[str]:
    file.write_text(sql)
    arguments = ["--pg-version", "14", "--exclude", ",".join(NOT_OURS), str(file)]
    return subprocess.run([SQUAWK, *arguments], capture_output=True, text=True, check=False)


def test_the_migrations_make_what_the_models_say(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, _: (kind, name) != ("table", STATE_TABLE)}
        )
        drift = compare_metadata(context, metadata)
    engine.dispose()

    assert not drift, "run: alembic revision --autogenerate"


@pytest.mark.parametrize("revision", revisions())
def test_the_sql_of_a_migration_is_safe_to_apply(revision: str, tmp_path: Path) -> None:
    script = ScriptDirectory(str(MIGRATIONS)).get_revision(revision)
    before = script.down_revision or "base"
    sql = StringIO()
    made = config()
    made.output_buffer = sql
    with redirect_stdout(StringIO()):
        command.upgrade(made, f"{before}:{revision}", sql=True)
    without_alembic_s_own = re.sub(r"CREATE TABLE alembic_version \(.*?\);", "", sql.getvalue(), flags=re.DOTALL)
    done = lint(tmp_path / f"{revision}.sql", without_alembic_s_own)

    assert "CREATE" in without_alembic_s_own
    assert done.returncode == 0, done.stdout + done.stderr


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
