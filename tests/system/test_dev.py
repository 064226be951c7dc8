"""`service dev`, which is what `make run` starts: everything comes up by itself, and nothing is left behind."""

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import psycopg
import pytest
import trio

from service.platform.database import open_embedded
from service.platform.database.development import for_psql
from service.platform.name import TITLE
from service.platform.testing.copies import copy_repository, run_in
from service.platform.testing.development import Lay
from service.platform.testing.fixtures import HEAD, waits_for_a_schema
from service.platform.testing.processes import PATIENCE, Process, descendants, ready, run_to_end, started
from tests.platform.database.migrations import write_migration
from tests.system.reloaded import wait_said


async def wait_gone(pids: list[int]) -> None:
    with trio.fail_after(PATIENCE):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await trio.sleep(0.02)


def sockets_left(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_socket()]


async def test_ctrl_c_leaves_no_process_and_no_socket(tmp_path: Path) -> None:
    async with ready(tmp_path, "dev") as service, httpx2.AsyncClient() as client:
        answer = await client.get(service.public + "/healthz")
        settings = (await client.get(service.management + "/settings")).json()
        below = descendants(service.process.pid)
        service.send(signal.SIGINT)

        assert await service.wait_end() == 0
        waits = [settings[f"SERVICE_DRAIN_{name}"]["value"] for name in ("DELAY", "SPREAD")]
        assert waits == ["0", "0"]  # nobody is routed here, and so it has nothing to wait for
        assert answer.status_code == 200
        assert below
        await wait_gone(below)
        assert not sockets_left(tmp_path)
        assert f"{TITLE} is ready on http://127.0.0.1:" in service.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_an_identity_provider_of_its_own_ends_with_it(
    tmp_path: Path, lay_development: Lay, number: signal.Signals
) -> None:
    lay_development(tmp_path)
    async with ready(tmp_path, "dev", "--identity") as service, httpx2.AsyncClient() as client:
        below = descendants(service.process.pid)
        me = (await client.get(service.public + "/auth/me")).json()
        with trio.fail_after(PATIENCE):  # the service does not wait for it
            while (begun := await client.get(service.public + "/auth/sign-in")).status_code == 503:
                await trio.sleep(0.2)
        form = await client.get(begun.headers["Location"])
        service.send(number)
        await service.wait_end()

        await wait_gone(below)
        assert (me["identity"], me["sign_in"]) == (True, True)
        assert "ada" in form.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_killed_owner_leaves_no_server(tmp_path: Path, lay_development: Lay, number: signal.Signals) -> None:
    lay_development(tmp_path)
    async with ready(tmp_path, "dev") as service:
        below = descendants(service.process.pid)
        service.send(number)
        await service.wait_end()

        await wait_gone(below)
        assert below
    async with ready(tmp_path, "dev") as service, httpx2.AsyncClient() as client:  # and the data can be used again
        assert (await client.get(service.public + "/healthz")).status_code == 200


async def test_a_second_signal_takes_the_server_along(tmp_path: Path, lay_development: Lay) -> None:
    lay_development(tmp_path)
    async with ready(tmp_path, "dev", drain_delay=60) as service:
        below = descendants(service.process.pid)
        service.send(signal.SIGINT)
        await wait_said(service, " draining ")
        await trio.sleep(0.7)  # later than an echo of the first, which it has heard by now
        service.send(signal.SIGINT)

        assert await service.wait_end() == 128 + signal.SIGINT
        await wait_gone(below)


async def test_two_run_at_once(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        services: list[Process] = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            services.append(await stack.enter_async_context(ready(tmp_path / name, "dev")))
        client = await stack.enter_async_context(httpx2.AsyncClient())

        assert [(await client.get(service.public + "/readyz")).status_code for service in services] == [200, 200]


@waits_for_a_schema
async def test_it_uses_another_server_and_never_migrates_it(tmp_path: Path, empty_database_url: str) -> None:
    with started(tmp_path, "dev", database_url=empty_database_url, log_format="json") as service:
        seen = await service.wait_event("schema seen")
        service.send(signal.SIGINT)

        assert await service.wait_end() == 0
        assert "run `service migrate`" in seen["meaning"]
        assert not (tmp_path / ".data").exists()


def change_data(tmp_path: Path, *statements: str) -> None:
    """Run these statements on the database in .data."""
    with (
        open_embedded(tmp_path / ".data" / "postgres") as server,
        psycopg.connect(for_psql(server.url), autocommit=True) as connection,
    ):
        for statement in statements:
            connection.execute(statement.encode())


@waits_for_a_schema
@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (("UPDATE schema_state SET revision = 'feed', serves_from = 'feed'",), "the schema is at feed and serves"),
        (("DROP TABLE schema_state", "UPDATE alembic_version SET version_num = 'feed'"), "the schema is at feed"),
        (("DROP TABLE schema_state, alembic_version",), "already exists (SQLSTATE 42P07)"),
    ],
    ids=["newer or another", "before there was a state", "before there was a version"],
)
def test_data_of_another_history_are_one_sentence_with_the_command_that_mends_it(
    tmp_path: Path, lay_development: Lay, statements: tuple[str, ...], reason: str
) -> None:
    lay_development(tmp_path)
    change_data(tmp_path, *statements)
    done = run_to_end(tmp_path, "dev")

    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert reason in line
    assert "`rm -r .data`" in line


def test_two_heads_are_no_fault_of_the_data(tmp_path: Path, lay_development: Lay) -> None:
    clone = copy_repository(tmp_path / "clone")
    lay_development(clone)
    for name in ("one", "two"):
        write_migration(clone / "migrations", name, "platform_jobs", serves_from="platform_jobs")
    done = run_to_end(clone, "dev", "--no-reload")

    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "`make join`" in line
    assert "rm -r" not in line


@waits_for_a_schema
def test_a_migration_that_fails_is_to_be_mended_before_the_data_are_thrown_away(
    tmp_path: Path, lay_development: Lay
) -> None:
    clone = copy_repository(tmp_path / "clone")
    lay_development(clone)
    write_migration(clone / "migrations", "wrong", HEAD, serves_from=HEAD, up="ALTER TABLE jobb ADD x int")
    done = run_to_end(clone, "dev", "--no-reload")

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert 'relation "jobb" does not exist' in line
    assert line.index("Mend the migration") < line.index("rm -r")


@waits_for_a_schema
def test_alembic_says_the_same_of_data_of_another_history(tmp_path: Path, lay_development: Lay) -> None:
    clone = copy_repository(tmp_path / "clone")
    lay_development(clone)
    change_data(clone, "UPDATE alembic_version SET version_num = 'feed'")
    done = run_in(clone, "alembic", "revision", "--autogenerate", "-m", "notes")

    assert done.returncode != 0
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if "Can't locate revision identified by 'feed'" in line and "`rm -r .data`" in line]
    assert "Traceback" not in done.stderr


def test_data_of_another_postgresql_are_one_sentence_with_the_command_that_mends_it(
    tmp_path: Path, lay_development: Lay
) -> None:
    lay_development(tmp_path)
    (tmp_path / ".data" / "postgres" / "PG_VERSION").write_text("9\n")
    done = run_to_end(tmp_path, "dev")

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "was made by PostgreSQL 9, and the one here is" in line
    assert "`rm -r .data`" in line


def test_a_directory_of_something_else_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".data" / "postgres").mkdir(parents=True)
    (tmp_path / ".data" / "postgres" / "notes.txt").touch()
    (tmp_path / "file").touch()
    for arguments, words in (((), "holds something else than a database"), (("--data", "file"), "cannot be used: ")):
        done = run_to_end(tmp_path, "dev", *arguments)

        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert words in done.stderr


def test_data_in_use_are_one_sentence(tmp_path: Path, lay_development: Lay) -> None:
    lay_development(tmp_path)
    with open_embedded(tmp_path / ".data" / "postgres"):
        done = run_to_end(tmp_path, "dev")

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "is in use by process" in line


@waits_for_a_schema
async def test_data_of_an_older_release_are_brought_up_to_date(tmp_path: Path, lay_development: Lay) -> None:
    clone = copy_repository(tmp_path / "clone")
    lay_development(clone)
    write_migration(
        clone / "migrations", "later", HEAD, serves_from="later", breaking="nothing else works", up="CREATE TABLE x ()"
    )
    async with ready(clone, "dev") as service, httpx2.AsyncClient() as client:
        info = (await client.get(service.management + "/info")).json()

    assert info["schema"] == {"state": "at", "revision": "later", "head": "later"}
