"""docs/add-a-feature.md, followed literally in a copy: it is green, and what it warns of is caught."""

import re
import subprocess
from pathlib import Path

import pytest

from service.platform.testing.copies import copy_repository, run_in, type_check
from service.platform.testing.fixtures import HEAD

PAGE = Path(__file__).parents[2] / "docs" / "add-a-feature.md"
FILES = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
CHANGES = re.findall(r"^```diff\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
MIGRATION = "migrations/versions/notes.py"
DRIFT = "tests/platform/test_migrations.py::test_the_migrations_make_what_the_models_say"
CONTRACT = "tests/test_notes_contract.py"
WHICH = (
    "tests/test_notes.py",
    CONTRACT,
    "tests/platform/test_architecture.py",
    "tests/platform/test_migrations.py",
    "-k",
    "notes or models_say",
)
MADE_UP = '''
"""Requests made up from what the notes say of themselves."""

from pathlib import Path

from tests.platform.http.test_contract import find


async def test_made_up_notes_find_nothing(tmp_path: Path, database_url: str) -> None:
    assert "Selected: 2" in await find(tmp_path, database_url, examples=60, seed=1, paths="^/api/notes/")
'''
LAYERS = "tests/platform/test_architecture.py::test_a_module_keeps_to_the_rules_of_its_room[service/notes/routes.py]"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = copy_repository(tmp_path_factory.mktemp("feature") / "clone")
    for name, text in FILES:
        assert not (copy / name).exists()
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(after_the_newest(text))
    features = copy / "service" / "features.py"
    features.write_text(changed(features.read_text(), CHANGES[0]))
    return copy


def after_the_newest(text: str) -> str:
    """Put the page's migration where it says: behind the newest one that is here, or first."""
    text = text.replace(
        'down_revision = "platform_jobs"', f'down_revision = "{HEAD}"' if HEAD else "down_revision = None"
    )
    return text.replace('serves_from = "platform_jobs"', f'serves_from = "{HEAD}"')


def changed(text: str, diff: str) -> str:
    """Insert each added line after the line that stands before it in the diff, or before the next when it is first."""
    lines = diff.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("+"):
            beside = lines[number - 1 if number else 1][1:] + "\n"
            added = line[1:] + "\n"
            assert text.count(beside) == 1
            text = text.replace(beside, beside + added if number else added + beside)
    return text


def run_tests(copy: Path, server_url: str, *which: str) -> subprocess.CompletedProcess[str]:
    return run_in(copy, "pytest", "-q", "-p", "no:cacheprovider", *which, TEST_DATABASE_URL=server_url)


def test_it_is_five_new_files_and_two_changed_lines() -> None:
    assert len(FILES) == 5
    assert len(re.findall(r"(?m)^\+", CHANGES[0])) == 2


def test_it_is_clean(followed: Path) -> None:
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache")):
        done = run_in(followed, *command)
        assert done.returncode == 0, done.stdout
    typed = type_check(followed)
    assert typed.returncode == 0, typed.stdout


def test_it_is_green_also_for_requests_made_up_from_its_declarations(followed: Path, server_url: str) -> None:
    (followed / CONTRACT).write_text(MADE_UP)
    done = run_tests(followed, server_url, *WHICH)

    assert done.returncode == 0, done.stdout


def test_a_forgotten_migration_and_an_imported_sibling_are_caught(followed: Path, server_url: str) -> None:
    migration, routes = followed / MIGRATION, followed / "service" / "notes" / "routes.py"
    kept = migration.read_text(), routes.read_text()
    try:
        migration.unlink()
        routes.write_text("from service.hello import open_hello\n" + kept[1])
        done = run_tests(followed, server_url, DRIFT, LAYERS)
    finally:
        migration.write_text(kept[0])
        routes.write_text(kept[1])

    assert f"FAILED {DRIFT}" in done.stdout, done.stdout
    assert f"FAILED {LAYERS}" in done.stdout, done.stdout
    assert "2 failed" in done.stdout
