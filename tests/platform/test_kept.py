"""`make test-database`: a server for tests that stays between runs, which clean up after others that were killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.platform.database.development import for_psql
from service.platform.database.embedded import running_url
from service.platform.testing.copies import copy_repository, run_in
from service.platform.testing.processes import descendants

TEST = """
from service.platform.testing.kept import kept_url


def test_a_database(server_url: str, database_url: str, template: str) -> None:
    assert server_url == kept_url()
    assert template.startswith("service_test_template_")
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    copy = copy_repository(tmp_path / "clone")
    (copy / "tests" / "test_one.py").write_text(TEST)
    return copy


@pytest.fixture
def keeper(clone: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the command in a clone, and yield it once pytest can use the server."""
    command = [sys.executable, "-m", "service.platform.testing.kept"]
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    with subprocess.Popen(command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "PostgreSQL for tests runs" in process.stdout.readline()
        yield process
        process.kill()


def databases(clone: Path) -> set[str]:
    url = running_url(clone / ".data" / "tests" / "postgres")
    assert url is not None
    with psycopg.connect(for_psql(url)) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datname ~ '^service'")}


def add_database(clone: Path, name: str) -> None:
    url = running_url(clone / ".data" / "tests" / "postgres")
    assert url is not None
    with psycopg.connect(for_psql(url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())


def test_runs_share_it_and_what_is_migrated(clone: Path, keeper: subprocess.Popen[str]) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    done = [run_in(clone, "pytest", "tests/test_one.py", "-q")]
    kept = databases(clone)
    add_database(clone, f"service_test_{gone.pid}_7")
    add_database(clone, f"service_test_{os.getpid()}_7")  # of one that runs
    done += [run_in(clone, "pytest", "tests/test_one.py", "-q")]

    assert [run.returncode for run in done] == [0, 0], done[-1].stdout
    assert len(kept) == 1
    assert databases(clone) == kept | {f"service_test_{os.getpid()}_7"}


def test_ctrl_c_leaves_nothing_of_it(clone: Path, keeper: subprocess.Popen[str]) -> None:
    below = descendants(keeper.pid)
    keeper.send_signal(signal.SIGINT)

    assert keeper.wait(60) == 0
    assert below
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    assert not (clone / ".data" / "tests" / "postgres").exists()


def test_a_second_one_says_that_one_runs(clone: Path, keeper: subprocess.Popen[str]) -> None:
    done = run_in(clone, "python", "-m", "service.platform.testing.kept")

    assert done.returncode == 1
    assert done.stderr == "a server for tests runs already\n"
