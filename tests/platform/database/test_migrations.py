"""The service's own migrations: they make what the models say, go down and up again, and their SQL is sound."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from service.platform.database import find_migrations, metadata, migrate
from service.platform.database.schema import STATE_TABLE
from service.platform.settings import PlatformSettings

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
REVISIONS = [script.revision for script in ScriptDirectory(str(find_migrations())).walk_revisions()]

# squawk's rules, without those that our own way of running migrations makes moot.
MOOT = (
    "prefer-robust-stmts",  # each migration is one transaction
    "require-timeout-settings",  # the runner sets them, once it has the lock
    "ban-drop-table",  # Alembic's own statements
)


def drift(url: str) -> list[object]:
    importlib.import_module("service.features")  # registers the features' tables
    with create_engine(url, poolclass=NullPool).connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, _: (kind, name) != ("table", STATE_TABLE)}
        )
        return list(compare_metadata(context, metadata))


def test_the_migrations_make_what_the_models_say(writable_database_url: str) -> None:
    assert drift(writable_database_url) == []


def test_all_migrations_go_up_down_and_up(empty_database_url: str) -> None:
    settings = PlatformSettings(database_url=empty_database_url)
    migrate(settings)
    with create_engine(empty_database_url, poolclass=NullPool).connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(find_migrations()))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    assert migrate(settings).applied == tuple(reversed(REVISIONS))
    assert drift(empty_database_url) == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_sql_of_each_migration_is_sound(revision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = ScriptDirectory(str(find_migrations()))
    script = scripts.get_revision(revision)
    config = Config()
    config.set_main_option("script_location", str(find_migrations()))
    command.upgrade(config, f"{script.down_revision or 'base'}:{revision}", sql=True)
    file = tmp_path / f"{revision}.sql"
    file.write_text(re.sub(r"CREATE TABLE alembic_version \(.*?;", "", capsys.readouterr().out, flags=re.DOTALL))
    rules = [f"--exclude={rule}" for rule in MOOT]
    done = subprocess.run([BIN / "squawk", *rules, file], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_migration_is_written_by_one_command(tmp_path: Path, empty_database_url: str) -> None:
    """As CONTRIBUTING.md says; what it writes is applied as it is."""
    copy = tmp_path / "clone"
    copy.mkdir()
    for name in ("migrations", "pyproject.toml", "README.md"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    (copy / "service").symlink_to(ROOT / "service")
    done = subprocess.run(
        [BIN / "alembic", "revision", "-m", "notes of rooms"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = [path for path in (copy / "migrations" / "versions").glob("*.py") if "notes_of_rooms" in path.name]

    assert len(written) == 1
    result = migrate(PlatformSettings(database_url=empty_database_url), migrations=copy / "migrations")
    assert len(result.applied) == len(REVISIONS) + 1
