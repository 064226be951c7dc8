"""`make feature`: a feature with a table, routes, a migration and a test, clean and green at once."""

import shutil
from pathlib import Path

import pytest

from service.platform.testing.copies import copy_repository, git, run_in, type_check

MADE_UP = '''
"""Requests made up from what the feature says of itself."""

from pathlib import Path

from tests.platform.http.test_contract import find


async def test_made_up_requests_find_nothing(tmp_path: Path, database_url: str) -> None:
    assert "Selected: 3" in await find(tmp_path, database_url, examples=20, seed=1, paths="^/api/tried-lines")
'''
MAKE = ("python", "deploy/feature.py")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("pristine") / "clone")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server_url: str) -> Path:
    copy = copy_repository(tmp_path_factory.mktemp("feature") / "clone")
    done = run_in(copy, *MAKE, "tried_lines", TEST_DATABASE_URL=server_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all well" in done.stdout
    return copy


def test_it_is_new_files_and_its_line(made: Path) -> None:
    changed = git(made, "status", "--porcelain", "--untracked-files=all").splitlines()
    [migration] = (made / "migrations" / "versions").glob("*_add_tried_lines.py")

    assert set(changed) == {
        " M service/features.py",
        f"?? {migration.relative_to(made)}",
        *(f"?? service/tried_lines/{name}.py" for name in ("__init__", "routes", "store")),
        "?? tests/test_tried_lines.py",
    }
    assert git(made, "diff", "--numstat", "service/features.py").split()[:2] == ["2", "0"]


def test_it_is_clean(made: Path) -> None:
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache")):
        done = run_in(made, *command)
        assert done.returncode == 0, done.stdout


@pytest.mark.ci
def test_it_fits_together(made: Path) -> None:
    typed = type_check(made)
    assert typed.returncode == 0, typed.stdout


def test_it_keeps_to_the_rules(made: Path, server_url: str) -> None:
    run = ("pytest", "-q", "-p", "no:cacheprovider", "tests/platform/test_architecture.py", "-k", "tried_lines")
    done = run_in(made, *run, TEST_DATABASE_URL=server_url)

    assert done.returncode == 0, done.stdout


@pytest.mark.ci
def test_requests_made_up_from_its_declarations_find_nothing(made: Path, server_url: str) -> None:
    (made / "tests" / "test_made_up.py").write_text(MADE_UP)
    run = ("pytest", "-q", "-p", "no:cacheprovider", "tests/test_made_up.py")
    try:
        done = run_in(made, *run, TEST_DATABASE_URL=server_url)
    finally:
        (made / "tests" / "test_made_up.py").unlink()

    assert done.returncode == 0, done.stdout


def test_what_another_branch_has_left_is_no_feature(pristine: Path) -> None:
    left = pristine / "service" / "left_behind" / "__pycache__"
    left.mkdir(parents=True)
    (left / "store.cpython-313.pyc").touch()
    script = "from deploy import feature; feature.refuse_bad('left_behind')"
    try:
        assert run_in(pristine, "python", "-c", script).returncode == 0
    finally:
        shutil.rmtree(left.parent)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "make feature NAME=orders"),
        ("Orders", "'Orders' is no name for a feature"),
        ("pg_class", "PostgreSQL's own begin with pg_"),
        ("class", "class is a word of Python's"),
        ("platform", "is there already"),
        ("settings", "take back what `git status` shows"),
        ("job", "there is a table job already"),
        ("schema_state", "there is a table schema_state already"),
        ("alembic_version", "there is a table alembic_version already"),
        ("identity", "has a blueprint identity already"),
    ],
)
def test_a_bad_name_is_refused_in_a_sentence(pristine: Path, name: str, said: str) -> None:
    done = run_in(pristine, *MAKE, name)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr
    assert git(pristine, "status", "--porcelain") == ""
