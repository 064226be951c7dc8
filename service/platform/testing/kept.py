"""A PostgreSQL server for tests that outlives a run of pytest: `make test-database` runs it until Ctrl-C.

Pytest then makes no cluster and migrates nothing before its first test. All that is in it is thrown away at its end;
what a killed run has left there goes at the beginning of the next one.
"""

import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

DATA = Path(__file__).parents[3] / ".data" / "tests" / "postgres"
CONNECTIONS = {"max_connections": "300"}  # several pytests, each with services of its own


def main() -> None:
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until there is somebody to end
    from service.platform.database import EmbeddedUnavailable, open_embedded  # here: that takes its time

    if kept_url():
        sys.exit("a server for tests runs already")
    shutil.rmtree(DATA, ignore_errors=True)  # it writes nothing through: what is left may be damaged
    try:
        with open_embedded(DATA, durable=False, settings=CONNECTIONS) as server:
            print(f"PostgreSQL for tests runs as process {server.pid}: pytest uses it from now on. Ctrl-C ends it.")
            sys.stdout.flush()
            signal.sigwait(signals)
    except EmbeddedUnavailable as error:
        sys.exit(str(error))
    shutil.rmtree(DATA, ignore_errors=True)


def kept_url() -> str | None:
    """Return the address of the server, as somebody who may create databases; None when there is none."""
    from service.platform.database.embedded import running_url

    return running_url(DATA)


def is_left(database: str, prefix: str) -> bool:
    """Return whether a database belongs to a process that is gone: its number follows the prefix."""
    number = database.removeprefix(prefix).partition("_")[0]
    if not database.startswith(prefix) or not number.isdigit():
        return False
    return int(number) == os.getpid() or not Path(f"/proc/{number}").exists()


def migrations_digest() -> str:
    """Return what tells a database that these migrations have made from one that others have."""
    from service.platform.database import find_migrations

    folders = find_migrations(), Path(__file__).parents[1] / "database"
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.suffix in {".py", ".sql", ".toml"})
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other pytest makes the template."""
    with DATA.with_name("template.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


if __name__ == "__main__":
    main()
