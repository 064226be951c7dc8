"""Write the next migration from what the models say, and try it: .venv/bin/python deploy/migration.py NAME

The models are compared with a throw-away database at the newest revision, so the development database is not touched.
What only adds serves the code that runs; for anything else this asks what stops working. Then the migration is linted,
applied, and taken back, as the tests do it.
"""

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from deploy.clone import ROOT, Refused, answer, attempt, command, say  # after the path above

GOOD_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
VERSIONS = ROOT / "migrations" / "versions"
BIN = Path(sys.executable).parent
# What old code may rely on: whatever else Alembic writes only adds.
CHANGES = ("drop_table", "drop_column", "alter_column", "drop_constraint", "rename_table", "create_unique_constraint")
TRIED_BY = "tests/platform/test_migrations.py"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the next migration from what the models say.")
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--breaking", default="", help="what stops working for the code that runs now")
    given = parser.parse_args()
    if not GOOD_NAME.fullmatch(given.name):
        raise Refused(
            f"{given.name!r} is no name for a migration: say what it does, in lower-case letters, digits and _, a "
            "letter first, at most 60 characters: make migration NAME=add_total"
        )
    written = write(given.name)
    changes = [name for name in CHANGES if re.search(rf"\bop\.{name}\(", body(written.read_text(), "upgrade"))]
    if changes:
        say_what_breaks(written, changes, given.breaking.strip() or ask(changes))
    say(f"written: {written.relative_to(ROOT)}")
    try_out(written)


@contextmanager
def whole_or_none() -> Iterator[None]:
    """Remove the migrations that were written in this scope when it fails or is interrupted."""
    before = set(VERSIONS.glob("*.py"))
    try:
        yield
    except BaseException:
        for written in set(VERSIONS.glob("*.py")) - before:
            written.unlink()
        raise


@whole_or_none()
def write(name: str) -> Path:
    """Let Alembic write the migration, against a throw-away database; return its file.

    What the environment and `.env` say is of no account: it is about another database, and may be missing.
    """
    from pydantic import ValidationError

    from service.features import FEATURES
    from service.platform.database import EmbeddedUnavailable, MigrationRefused
    from service.platform.database.embedded import open_embedded
    from service.platform.database.migrate import migrate
    from service.platform.database.progress import MigrationFailed
    from service.platform.feature import catalogue
    from service.platform.settings import PREFIX
    from service.platform.settings.load import hide_from_libpq
    from service.platform.testing.settings import settings_of, stand_ins
    from service.settings import Settings

    hide_from_libpq()
    for variable in [variable for variable in os.environ if variable.upper().startswith(PREFIX)]:
        del os.environ[variable]
    try:
        known = catalogue(Settings, FEATURES)
        with tempfile.TemporaryDirectory() as scratch, open_embedded(Path(scratch) / "data", durable=False) as server:
            migrate(settings_of(known, database_url=server.url))
            given = stand_ins(known) | {"SERVICE_DATABASE_URL": server.url}
            written = let_alembic_write(
                *("revision", "--autogenerate", "-m", name.replace("_", " ")), directory=Path(scratch), **given
            )
    except (EmbeddedUnavailable, MigrationFailed, MigrationRefused, LookupError, ValidationError) as error:
        raise Refused(str(error)) from error
    if body(written.read_text(), "upgrade").strip() == "pass":
        raise Refused(
            "the tables that the features name are those that the migrations make: change a table first, in a module "
            f"that a feature imports; what no table shows begins with {by_hand(name)}"
        )
    return written


def by_hand(name: str) -> str:
    """Return the command for a migration that nothing can be written into, such as one that fills a column."""
    return f".venv/bin/alembic revision -m '{name.replace('_', ' ')}'"


@whole_or_none()
def let_alembic_write(*arguments: str, directory: Path = ROOT, **environment: str) -> Path:
    """Run a command of Alembic's that writes one migration, in a directory, whose `.env` it reads; return its file."""
    before = set(VERSIONS.glob("*.py"))
    given = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    alembic = (str(BIN / "alembic"), "-c", str(ROOT / "pyproject.toml"))
    done = attempt(*alembic, *arguments, environment=given, directory=directory)
    if done.returncode:
        raise Refused(f"alembic failed:\n{done.stdout}{done.stderr}")
    [written] = set(VERSIONS.glob("*.py")) - before
    return written


def body(source: str, function: str) -> str:
    """Return the statements of a function, as they stand."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return "\n".join(source.splitlines()[node.body[0].lineno - 1 : node.end_lineno])
    return ""


def ask(changes: list[str]) -> str:
    if sys.stdin.isatty():
        say(f"This migration does more than add: {', '.join(changes)}.")
    return answer("What stops working for the code that runs now? (nothing, if that code does without) ")


def say_what_breaks(written: Path, changes: list[str], breaking: str) -> None:
    """Write the reason into the migration, which then serves only code that knows it; without one, ask for it."""
    if not breaking:
        say(
            f"{', '.join(changes)}: does the code that runs now do without? If not, set `breaking` and `serves_from` "
            "in the file; or remove it and run this again with BREAKING='what stops working', which writes both"
        )
        return
    text = written.read_text()
    text = re.sub(r"(?m)^breaking = None$", lambda _: f"breaking = {breaking!r}", text)
    text = re.sub(r"(?m)^serves_from = .*$", "serves_from = revision", text)
    meant = tuple(f"ban-{name.replace('_', '-')}" for name in changes if name in {"drop_table", "drop_column"})
    text = re.sub(r"(?m)^meant = \(\)$", f"meant = {meant!r}", text)
    written.write_text(text)
    subprocess.run([BIN / "ruff", "format", "--quiet", written], check=False)


def try_out(written: Path, *more: str) -> None:
    """Run the tests of the migrations, and more; when one fails, what was written stays to be mended."""
    tests = (TRIED_BY, *more)
    arguments = ("-q", "--tb=short", "-p", "no:cacheprovider", *tests)
    done = subprocess.run([BIN / "pytest", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        file = written.relative_to(ROOT)
        sys.exit(f"{done.stdout}\n{file} stands; mend it, and try it again by `.venv/bin/pytest {' '.join(tests)}`")
    say("Linted, applied to a database of each release, and taken back: all well. Read it, and commit it.")


if __name__ == "__main__":
    command(main)
