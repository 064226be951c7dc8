"""What a verb may not import: each package costs every start, of each replica and in many tests."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.platform.process.start import SELDOM_USED
from service.platform.testing.development import Lay
from service.platform.testing.processes import Process, ready, run_to_end

TIMED = (sys.executable, "-X", "importtime", "-m", "service")
# Of Alembic, for pages of errors; of structlog, for tracebacks in colours.
FOR_PEOPLE = {"mako", "pygments", "rich"}
SERVES = {"quart", "hypercorn", "werkzeug", "quart_schema", "prometheus_client"}
DATABASE = {"sqlalchemy", "psycopg", "alembic"}
IDENTITY = {"joserfc", "httpx2", "cryptography"}
HTTP2 = {"h2", "hpack", "hyperframe"}
ANY = FOR_PEOPLE | SERVES | DATABASE | IDENTITY | {"pydantic", "pydantic_settings", "trio", "structlog", "asyncio"}
LATER = "name what serves in your Feature instead of importing it: docs/add-a-feature.md"


def imported(lines: str) -> set[str]:
    """Return the packages of which there is any module; one that was asked for in vain is listed alone."""
    return {name.partition(".")[0] for name in modules(lines) if "." in name}


def modules(lines: str) -> set[str]:
    """Return what `-X importtime` lists."""
    return {line.rpartition("|")[2].strip() for line in lines.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (("--help",), ANY),
        (("--version",), ANY),
        (("migrate", "--help"), ANY - {"pydantic"}),  # typer checks numbers with it
        (("info", "http://127.0.0.1:9"), ANY - {"pydantic", "trio"}),
        (("settings",), FOR_PEOPLE | SERVES | IDENTITY | DATABASE | {"trio"}),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_a_verb_that_neither_serves_nor_migrates_imports_neither(
    words: tuple[str, ...], unwanted: set[str], tmp_path: Path
) -> None:
    done = run_to_end(tmp_path, *words, command=TIMED)

    assert "service.platform.verbs" in modules(done.stderr)
    assert imported(done.stderr) & unwanted == set(), LATER


def test_what_migrates_does_not_import_what_serves(tmp_path: Path, writable_database_url: str) -> None:
    done = run_to_end(tmp_path, "migrate", command=TIMED, database_url=writable_database_url)

    assert (done.returncode, "alembic" in imported(done.stderr)) == (0, True), done.stderr
    for_people = FOR_PEOPLE - {"mako"}  # which Alembic imports whatever it is asked for
    assert imported(done.stderr) & (SERVES - {"prometheus_client"} | IDENTITY | for_people) == set(), LATER


async def test_what_serves_imports_neither_what_migrates_nor_what_was_not_asked_for(
    tmp_path: Path, database_url: str
) -> None:
    async with ready(tmp_path, "serve", command=TIMED, database_url=database_url, drain_delay=0) as service:
        await ended(service)
        lines = service.log.read_text()

    assert "quart" in imported(lines)
    assert imported(lines) & (FOR_PEOPLE | IDENTITY | HTTP2 | {"alembic", "opentelemetry", "typer"}) == set()
    assert not {name for name in modules(lines) if name.startswith("service.platform.client")}


async def test_what_asks_an_identity_provider_is_imported_before_the_event_loop_is_watched(
    tmp_path: Path, database_url: str
) -> None:
    """It takes more than a tenth of a second, and was the log's first error of each start."""
    provider = {"auth_issuer": "http://127.0.0.1:9", "auth_audience": "x", "auth_client_id": "x"}
    async with ready(tmp_path, "serve", command=TIMED, database_url=database_url, drain_delay=0, **provider) as service:
        await ended(service)
        before, started, after = service.log.read_text().partition('"event": "starting"')

    assert started
    assert imported(before) >= IDENTITY
    assert imported(after) & IDENTITY == set()


async def test_what_starts_the_service_anew_at_each_save_imports_nothing_that_serves_or_migrates(
    tmp_path: Path, lay_development: Lay
) -> None:
    """A child waits until it has its sockets and its database from there."""
    lay_development(tmp_path)
    async with ready(tmp_path, "dev", command=TIMED) as service:
        service.send(signal.SIGTERM)
        assert await service.wait_end() == 0
        lines = service.log.read_text()

    assert "psycopg" in imported(lines)
    assert imported(lines) & (FOR_PEOPLE | SERVES | IDENTITY | HTTP2 | {"alembic"}) == set()


def test_what_is_left_out_of_a_start_is_there_for_whoever_imports_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_HTTP2], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "None RequestReceived H2Protocol\n"), done.stderr


WITHOUT_HTTP2 = """
from service.platform.process.start import without_http2
with without_http2():
    import service.platform.server
import hypercorn.protocol
import h2.events
import hypercorn.protocol.h2
print(hypercorn.protocol.H2Protocol, h2.events.RequestReceived.__name__, hypercorn.protocol.h2.H2Protocol.__name__)
"""


def test_what_is_seldom_used_is_imported_when_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", AT_FIRST_USE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, f"{sorted(SELDOM_USED)}\n[]\n"), done.stderr


AT_FIRST_USE = """
import sys
from service.platform.process.start import SELDOM_USED, import_at_first_use
import_at_first_use()
from service.platform.verbs.program import import_structlog
import_structlog()
from service.features import FEATURES
from service.platform.feature import import_all
from service.platform.process import main
import_all(FEATURES)

def not_loaded():
    classes = {name: object.__getattribute__(sys.modules[name], "__class__").__name__ for name in SELDOM_USED}
    return sorted(name for name, kind in classes.items() if kind == "_LazyModule")

print(not_loaded())
for name in SELDOM_USED:
    assert sys.modules[name].__doc__ or dir(sys.modules[name])
print(not_loaded())
"""


async def ended(service: Process) -> None:
    service.send(signal.SIGTERM)
    assert await service.wait_end() == 0
