"""`make without-hello`: the smallest feature goes, and nothing misses it."""

import shutil
import sys
import tomllib
from pathlib import Path

import httpx2
import pytest

from service.platform.testing.copies import ROOT, commit, copy_repository, git, run_in
from service.platform.testing.processes import ready

REMOVE = ("python", "deploy/remove_hello.py")
QUIETLY = ("pytest", "-q", "-p", "no:cacheprovider")
pytestmark = pytest.mark.skipif(not (ROOT / "service" / "hello.py").exists(), reason="it has been removed already")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("pristine") / "clone")


@pytest.fixture(scope="module")
def removed(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("removed") / "clone", symlinks=True))
    done = run_in(copy, *REMOVE)
    assert (done.returncode, "failed" in done.stdout) == (0, False), done.stdout + done.stderr
    commit(copy)
    return copy


def test_it_is_three_files_and_the_lines_that_are_marked(pristine: Path, removed: Path) -> None:
    changed = git(removed, "diff", "--name-status", "--no-renames", "HEAD~").splitlines()
    deleted = {line.split("\t")[1] for line in changed if line.startswith("D")}

    assert deleted == {"deploy/remove_hello.py", "service/hello.py", "tests/test_hello.py"}
    assert {line.split("\t")[1] for line in changed} >= {"service/features.py", ".template.toml"}
    assert "hello" not in (removed / "service" / "features.py").read_text()
    assert tomllib.loads((removed / ".template.toml").read_text())["removed"][0] == "hello"


def test_what_is_left_is_clean(removed: Path) -> None:
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache")):
        done = run_in(removed, *command)
        assert done.returncode == 0, done.stdout


def test_the_documents_are_true_without_it(removed: Path, server_url: str) -> None:
    done = run_in(removed, *QUIETLY, "tests/docs/test_docs.py", TEST_DATABASE_URL=server_url)

    assert done.returncode == 0, done.stdout[-3000:]


async def test_a_clone_without_any_feature_serves(removed: Path, tmp_path: Path, writable_database_url: str) -> None:
    copy = Path(shutil.copytree(removed, tmp_path / "clone", symlinks=True))
    features = copy / "service" / "features.py"
    kept = [line for line in features.read_text().splitlines(keepends=True) if "# sample" not in line]
    features.write_text("".join(kept))
    command = ("env", f"PYTHONPATH={copy}", sys.executable, "-m", "service")
    given = {"command": command, "database_url": writable_database_url, "drain_delay": 0}
    async with ready(tmp_path, "serve", **given) as service, httpx2.AsyncClient() as client:
        front, described = await client.get(service.public), await client.get(f"{service.public}/openapi.json")

    assert (front.status_code, described.status_code) == (404, 200)


def test_a_feature_with_a_longer_name_stays(pristine: Path, tmp_path: Path) -> None:
    clone = Path(shutil.copytree(pristine, tmp_path / "clone", symlinks=True))
    features = clone / "service" / "features.py"
    line = '    Feature("hello_world", open="service.hello_world:open_hello_world"),\n)\n'
    features.write_text(features.read_text().replace("\n)\n", f"\n{line}"))
    commit(clone)
    done = run_in(clone, *REMOVE)

    assert done.returncode == 0, done.stderr
    assert features.read_text().endswith(line)


def test_it_refuses_what_it_cannot_take_out(removed: Path, pristine: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(removed, tmp_path / "again", symlinks=True))
    shutil.copy(ROOT / "deploy" / "remove_hello.py", again / "deploy")
    commit(again)
    assert "has been removed already" in run_in(again, *REMOVE).stderr

    clone = Path(shutil.copytree(pristine, tmp_path / "clone", symlinks=True))
    (clone / ".template.toml").write_text("<<<<<<< yours")
    commit(clone)
    assert ".template.toml cannot be read" in run_in(clone, *REMOVE).stderr

    git(clone, "rm", "--quiet", ".template.toml")
    features = clone / "service" / "features.py"
    features.write_text(features.read_text().replace("  # hello", ""))
    commit(clone)
    assert "not marked" in run_in(clone, *REMOVE).stderr
    assert git(clone, "status", "--porcelain") == ""
