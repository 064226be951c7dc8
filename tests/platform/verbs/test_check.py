"""The doctor, `service check`, as an operator runs it."""

import socket
from pathlib import Path

from service.platform.testing.fixtures import waits_for_a_schema
from service.platform.testing.processes import run_to_end


def lines(output: str) -> dict[str, str]:
    return {line.split()[1]: line for line in output.splitlines()}


def test_all_is_well(tmp_path: Path, database_url: str) -> None:
    done = run_to_end(tmp_path, "check", database_url=database_url, bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    found = lines(done.stdout)

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(found) == [
        "settings", "bind", "management", "descriptors", "database", "version", "connections", "rights", "schema",
        "ceilings", "clock",
    ]  # fmt: skip
    assert not [line for line in found.values() if line.startswith("FAIL")]
    assert "PostgreSQL" in found["version"]


def test_each_failure_says_what_to_do(tmp_path: Path, empty_database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_to_end(tmp_path, "check", database_url=empty_database_url, bind=bind, max_websockets=1_000_000)
    found = lines(done.stdout)

    assert done.returncode == 1
    assert found["bind"].startswith("FAIL")
    assert "is taken; choose another SERVICE_BIND" in found["bind"]
    assert found["descriptors"].startswith("warn")
    assert "ulimit -n" in found["descriptors"]


@waits_for_a_schema
def test_a_schema_that_is_behind_says_what_to_do(tmp_path: Path, empty_database_url: str) -> None:
    found = lines(run_to_end(tmp_path, "check", database_url=empty_database_url, bind="127.0.0.1:0").stdout)

    assert found["schema"].startswith("FAIL")
    assert "run `service migrate`" in found["schema"]


def test_a_database_that_is_away_is_a_failure_without_a_password(tmp_path: Path) -> None:
    done = run_to_end(tmp_path, "check", database_url="postgresql://me:hunter2@127.0.0.1:1/db", bind="127.0.0.1:0")

    assert done.returncode == 1
    assert lines(done.stdout)["database"].startswith("FAIL")
    assert "hunter2" not in done.stdout + done.stderr


def test_no_address_names_the_setting(tmp_path: Path) -> None:
    done = run_to_end(tmp_path, "check", bind="127.0.0.1:0")

    assert (done.returncode, "SERVICE_DATABASE_URL" in done.stdout) == (1, True)
