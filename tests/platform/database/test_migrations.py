"""What surrounds migrations: how one is written, and what is said of files and of databases that do not fit."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from service.platform.database import MigrationRefused, MigrationsWrong, find_migrations
from service.platform.database.migrate import migrate
from service.platform.database.revisions import read_scripts
from service.platform.database.schema import read_code_schema
from service.platform.testing.copies import copy_repository, run_in, type_check
from service.platform.testing.development import Lay
from service.platform.testing.fixtures import HEAD, fresh_database, waits_for_a_schema
from service.platform.testing.processes import run_to_end, started
from tests.platform.database.migrations import Release, make_release, write_migration
from tests.platform.database.observer import conninfo
from tests.platform.test_migrations import lint_migration
from tests.platform.upgrades import fill_database, settings_for, upgrade_problems

# A feature's models as they grow, each version over the one before.
MODELS = '''"""Notes."""

from sqlalchemy import Column, ForeignKey, Table, Text, types

from service.platform.database import metadata

note = Table("note", metadata, Column("name", Text, primary_key=True){column})
{more}'''
FOLDER = """
folder = Table(
    "folder", metadata, Column("id", types.BigInteger, primary_key=True), Column("of", ForeignKey(note.c.name))
)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository in which `written` writes migrations; the tests build upon each other's."""
    return copy_repository(tmp_path_factory.mktemp("written") / "clone")


def give_models(clone: Path, column: str = "", more: str = "") -> None:
    (clone / "service" / "notes.py").write_text(MODELS.format(column=column, more=more))
    features = clone / "service" / "features.py"
    if "service.notes" not in features.read_text():
        features.write_text(features.read_text() + "\nimport service.notes  # noqa: E402, F401, RUF100\n")


def alembic(clone: Path, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    return run_in(clone, "alembic", *arguments, SERVICE_DATABASE_URL=url)


def autogenerate(clone: Path, url: str, message: str) -> Path:
    """Write a migration as a developer does: the database at head, the models ahead; return its file."""
    before = set((clone / "migrations" / "versions").glob("*.py"))
    for arguments in (("upgrade", "head"), ("revision", "--autogenerate", "-m", message)):
        done = alembic(clone, *arguments, url=url)
        assert done.returncode == 0, done.stdout + done.stderr
    [written] = set((clone / "migrations" / "versions").glob("*.py")) - before
    return written


@pytest.fixture(scope="module")
def grown(clone: Path, server_url: str, template: str) -> list[Path]:
    """Return two additions that were written one after the other, for one release."""
    with fresh_database(server_url, template) as url:
        give_models(clone)
        first = autogenerate(clone, url, r'notes: "what" \ people say """ and much more of it, ' + "on and on " * 12)
        give_models(clone, column=', Column("text", Text), Column("kind", Text, server_default="plain")', more=FOLDER)
        return [first, autogenerate(clone, url, "notes have folders")]


def test_two_additions_in_one_release_are_applied_to_a_live_database(
    clone: Path, grown: list[Path], writable_database_url: str
) -> None:
    assert len(grown) == 2
    migrated = migrate(settings_for(writable_database_url), migrations=clone / "migrations")

    assert len(migrated.applied) == 2
    assert migrated.before == HEAD


def test_what_is_written_passes_the_check_of_style_and_types(clone: Path, grown: list[Path]) -> None:
    names = [str(path) for path in grown]
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache"), ("flake8-async",)):
        done = run_in(clone, *command, *names)
        assert done.returncode == 0, done.stdout + done.stderr
    typed = type_check(clone)
    assert typed.returncode == 0, typed.stdout


def test_code_of_every_earlier_release_works_on_what_was_added(
    clone: Path, grown: list[Path], empty_database_url: str, tmp_path: Path
) -> None:
    migrations = clone / "migrations"
    first, *_ = reversed([script.revision for script in read_scripts(migrations).walk_revisions()])
    fill_database(empty_database_url, migrations, first, tmp_path)

    assert list(upgrade_problems(empty_database_url, migrations, first, tmp_path)) == []
    assert len(grown) == 2


def test_an_empty_migration_passes_and_needs_no_database(clone: Path, grown: list[Path]) -> None:
    before = {*(clone / "migrations" / "versions").glob("*.py")}
    assert len(grown) == 2
    done = alembic(clone, "revision", "-m", "by hand")
    assert done.returncode == 0, done.stdout + done.stderr
    [written] = {*(clone / "migrations" / "versions").glob("*.py")} - before
    checked = run_in(clone, "ruff", "check", "--no-cache", str(written))
    formatted = run_in(clone, "ruff", "format", "--check", "--no-cache", str(written))
    written.unlink()

    assert checked.returncode == 0, checked.stdout
    assert formatted.returncode == 0, formatted.stdout


@dataclass(frozen=True)
class Slip:
    """A migration after `one` (notes.body) that is refused by nobody and stops old code, and what the suite says."""

    up: str
    serves_from: str
    said: str


@pytest.mark.parametrize(
    "slip",
    [
        Slip("SELECT 1", "two", "two stops serving one and does not say `breaking`"),
        Slip("ALTER TABLE notes DROP body", "one", "two says that it serves one, whose code fails: column"),
        Slip("DELETE FROM notes; ALTER TABLE notes ADD x int NOT NULL", "one", "null value"),
        Slip("ALTER TABLE notes RENAME TO remarks", "one", "relation"),
    ],
    ids=lambda slip: slip.up[:24],
)  # fmt: skip
def test_a_slip_that_would_stop_a_release_is_found(
    slip: Slip, release: Release, empty_database_url: str, tmp_path: Path
) -> None:
    code = release("one")
    write_migration(code, "two", "one", serves_from=slip.serves_from, up=slip.up)
    fill_database(empty_database_url, code, "one", tmp_path / "steps")
    problems = list(upgrade_problems(empty_database_url, code, "one", tmp_path / "steps"))

    assert problems
    assert slip.said in problems[0]


def test_a_row_is_made_up_for_each_kind_of_column_that_must_be_filled(
    release: Release, empty_database_url: str, tmp_path: Path
) -> None:
    code = release("one")
    kinds = (
        "real, double precision, numeric(12, 2), interval, date, time, timestamptz, bytea, uuid, char(2), boolean, "
        "whole, daterange, tstzrange, nummultirange, inet, cidr, macaddr, macaddr8, tsvector, tsquery, bit(3), uuid[], "
        "jsonb, money, oid, regclass, regconfig"
    )
    columns = ", ".join(f"c{number} {kind} NOT NULL" for number, kind in enumerate(re.split(r", (?!\d)", kinds)))
    up = f"CREATE DOMAIN whole AS integer CHECK (VALUE > 0); CREATE TABLE kinds ({columns})"
    write_migration(code, "two", "one", serves_from="one", up=up)

    fill_database(empty_database_url, code, "two", tmp_path / "steps")


def test_a_table_that_takes_no_made_up_row_says_what_was_wrong_with_it(
    release: Release, empty_database_url: str, tmp_path: Path
) -> None:
    code = release("one")
    up = "ALTER TABLE notes ADD CONSTRAINT notes_have_a_body CHECK (body IS NOT NULL)"
    write_migration(code, "two", "one", serves_from="one", up=up)

    with pytest.raises(AssertionError, match=r'violates check constraint "notes_have_a_body"\): say .* `fills`, or'):
        fill_database(empty_database_url, code, "two", tmp_path / "steps")


def test_a_removal_that_is_announced_is_none(release: Release, empty_database_url: str, tmp_path: Path) -> None:
    code = release("three")
    fill_database(empty_database_url, code, "one", tmp_path / "steps")

    assert list(upgrade_problems(empty_database_url, code, "one", tmp_path / "steps")) == []


def test_a_drop_is_found_by_the_linter_unless_it_is_meant(release: Release, tmp_path: Path) -> None:
    code = release("three")
    unsaid = lint_migration(code, "three", tmp_path)
    with (code / "versions" / "three.py").open("a") as file:
        file.write('\nmeant = ("ban-drop-column",)\n')
    said = lint_migration(code, "three", tmp_path)

    assert (unsaid.returncode, said.returncode) == (1, 0), said.stdout
    assert "ban-drop-column" in unsaid.stdout


@pytest.fixture
def two_heads(tmp_path: Path) -> Path:
    """Return a copy of the repository in which two people have written a migration after the same one."""
    clone = copy_repository(tmp_path / "clone")
    for name in ("east", "west"):
        write_migration(clone / "migrations", name, HEAD, serves_from=HEAD or name, up=f"CREATE TABLE {name} (x int)")
    return clone


def test_two_heads_are_a_sentence_everywhere_and_what_joins_them_is_migrated_to(
    two_heads: Path, writable_database_url: str
) -> None:
    sentence = "the migrations have 2 heads, east and west: `make join` writes one after them"

    def service(verb: str) -> subprocess.CompletedProcess[str]:
        free = "127.0.0.1:0"
        return run_in(
            two_heads, "service", verb,
            SERVICE_DATABASE_URL=writable_database_url, SERVICE_BIND=free, SERVICE_MANAGEMENT_BIND=free,
        )  # fmt: skip

    for verb, code in (("migrate", 4), ("check", 1), ("serve", 1)):
        done = service(verb)
        said = [line for line in (done.stdout + done.stderr).splitlines() if "heads" in line]
        assert (done.returncode, len(said)) == (code, 1), done.stdout + done.stderr
        assert sentence in said[0]
        assert "Traceback" not in done.stdout + done.stderr
    collected = run_in(two_heads, "pytest", "--collect-only", "-q", "tests/platform/test_lifecycle.py")
    assert collected.returncode != 0
    assert sentence in collected.stdout + collected.stderr
    assert len((collected.stdout + collected.stderr).splitlines()) < 5

    merged = run_in(two_heads, "python", "-c", "from deploy.join import join; join()")
    assert merged.returncode == 0, merged.stdout + merged.stderr
    done = service("migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    styled = run_in(two_heads, "ruff", "check", "--no-cache", "migrations/versions")
    assert [line for line in styled.stdout.splitlines() if "join" in line] == []


@pytest.mark.parametrize("before", ["two", ""])
def test_a_database_goes_on_from_before_a_migration_that_was_removed(
    before: str, release: Release, empty_database_url: str
) -> None:
    settings = settings_for(empty_database_url)
    code = release("two")
    if not before:
        (code / "versions" / "two.py").unlink()
        (code / "versions" / "one.py").unlink()
    write_migration(code, "gone", before or None, serves_from=before or "gone", up="CREATE TABLE gone (x int)")
    migrate(settings, migrations=code)
    (code / "versions" / "gone.py").unlink()
    (code / "removed.toml").write_text(f'"gone" = "{before}"\n')
    write_migration(code, "next", before or None, serves_from=before or "next", up="CREATE TABLE next (x int)")

    with pytest.raises(MigrationRefused, match="taken out of this code: `--forget` goes on"):
        migrate(settings, migrations=code)
    assert migrate(settings, migrations=code, forgetting=True).applied == ("next",)
    with psycopg.connect(conninfo(empty_database_url)) as connection:
        applied = connection.execute("SELECT applied FROM schema_state").fetchone()
        assert applied is not None
        assert not before or "gone" in applied[0], "code that still has it is served: its tables are there"
        assert connection.execute("SELECT revision FROM schema_state").fetchall() == [("next",)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("next",)]
        assert connection.execute("SELECT count(*) FROM gone").fetchone() == (0,)


@pytest.mark.parametrize("side", ["east", "west"])
def test_a_merge_reaches_databases_of_both_branches(
    side: str, release: Release, empty_database_url: str, tmp_path: Path
) -> None:
    settings = settings_for(empty_database_url)
    code = release("two")
    write_migration(code, side, "two", serves_from="one", up=f"CREATE TABLE {side} (x int)")
    migrate(settings, migrations=code)
    other = {"east": "west", "west": "east"}[side]
    write_migration(code, other, "two", serves_from="two", breaking="for a reason", up=f"CREATE TABLE {other} (x int)")
    write_migration(code, "both", "?", serves_from="two")
    merge = code / "versions" / "both.py"
    merge.write_text(merge.read_text().replace("'?'", "('east', 'west')"))
    migrated = migrate(settings, migrations=code, breaking=True)

    assert migrated.applied == (other, "both")
    assert lint_migration(code, "both", tmp_path).returncode == 0
    with psycopg.connect(conninfo(empty_database_url)) as connection:
        assert connection.execute("SELECT revision, serves_from FROM schema_state").fetchall() == [("both", "two")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def upgrade(:", "SyntaxError"),
        ("revision, down_revision = 'two', 'gone'", "gone"),
        ("revision, down_revision = 'one', None", "one is present more than once"),
        ("import no_such_module", "no_such_module"),
    ],
    ids=["syntax", "parent", "twice", "import"],
)
def test_files_that_cannot_be_used_are_a_sentence(release: Release, text: str, words: str) -> None:
    code = release("one")
    (code / "versions" / "wrong.py").write_text(text)

    with pytest.raises(MigrationsWrong, match=words) as wrong:
        read_code_schema(code)
    assert len(str(wrong.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["versions", "versions/one.py"])
def test_files_that_may_not_be_read_are_a_sentence(public: Path, name: str) -> None:
    """Of an image, say, that was built from a clone made under a strict umask. They are not taken for no migrations."""
    code = make_release(public, "one")
    read_code_schema(code), read_scripts(code)  # imports, which somebody else may not
    shutil.rmtree(code / "versions" / "__pycache__", ignore_errors=True)  # what has its bytecode need not be readable
    (code / name).chmod(0)

    with somebody(), pytest.raises(MigrationsWrong, match="PermissionError") as wrong:
        read_code_schema(code)
    assert len(str(wrong.value).splitlines()) == 1


@contextmanager
def somebody() -> Iterator[None]:
    """Be who may not read everything, as root may."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@waits_for_a_schema
def test_alembic_reads_the_file_of_settings(clone: Path, writable_database_url: str) -> None:
    (clone / ".env").write_text(f"SERVICE_DATABASE_URL={writable_database_url}\n")
    done = alembic(clone, "current")
    (clone / ".env").unlink()

    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == HEAD


def test_alembic_says_in_one_line_what_is_wrong(clone: Path) -> None:
    done = alembic(clone, "current", url="nonsense")

    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert "SERVICE_DATABASE_URL" in done.stdout + done.stderr


def test_alembic_without_an_address_uses_the_development_database(clone: Path, grown: list[Path]) -> None:
    migrated = alembic(clone, "upgrade", "head")  # starts it: nobody runs it
    assert migrated.returncode == 0, migrated.stderr
    current = alembic(clone, "current")

    assert grown[-1].name.startswith(current.stdout.split()[0])
    assert (clone / ".data" / "postgres").is_dir()


@waits_for_a_schema
async def test_the_address_of_a_running_development_database_is_one_that_psql_takes(
    tmp_path: Path, lay_development: Lay
) -> None:
    lay_development(tmp_path)
    with started(tmp_path, "dev") as service:
        await service.wait_ready()
        address = run_to_end(tmp_path, "address").stdout.strip()
        with psycopg.connect(address) as connection:
            [(revision,)] = connection.execute("SELECT revision FROM schema_state").fetchall()
        settings = str(find_migrations().parent / "pyproject.toml")
        command = [str(Path(sys.executable).with_name("alembic")), "-c", settings, "current"]
        current = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

        assert revision == HEAD
        assert current.stdout.split()[0] == HEAD
        assert f"'{address}'" in service.log.read_text()
    gone = run_to_end(tmp_path, "address")
    assert gone.returncode == 1
    assert len(gone.stderr.splitlines()) == 1
