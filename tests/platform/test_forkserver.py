"""Processes that tests fork rather than start: what they are, seen from outside, is what a start would have made."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pytest

from service.platform.testing.forkserver import ROOT, Fork, ForkServer
from service.platform.testing.processes import descendants

# Ends as it is told to, once it has written what it is.
PROGRAM = """
import ctypes  # the server of forks has, and the libffi of some systems keeps a descriptor of its own file
import json, os, signal, sys, threading
if __name__ == "__main__":
    said = {
        "argv": sys.argv, "path": sys.path[0], "main": sys.modules["__main__"].__file__, "cwd": os.getcwd(),
        "environment": dict(os.environ), "group": os.getpgrp(), "threads": len(threading.enumerate()),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")), "stdin": sys.stdin.read(),
        "signals": {int(number): repr(signal.getsignal(number)) for number in range(1, 32)},
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    }
    print(json.dumps(said, default=str))
    print("done", file=sys.stderr)
    exec(sys.argv[1])
"""
WAIT = "print('waits', file=sys.stderr)\nsignal.pause()"


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with closing(ForkServer()) as server:
        yield server


@pytest.fixture
def fork(server: ForkServer, tmp_path: Path) -> Iterator[Callable[..., Fork]]:
    """Yield what forks the program above, in a directory of its own, that executes a line at its end."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "in").write_text("asked\n")
    forks = []

    def make(line: str, **environment: str) -> Fork:
        with (
            (tmp_path / "in").open() as given,
            (tmp_path / "out").open("w") as out,
            (tmp_path / "err").open("w") as err,
        ):
            streams = [stream.fileno() for stream in (given, out, err)]
            command = (sys.executable, "-m", "program", line)
            forks.append(server.fork(command, directory=tmp_path, environment=environment, streams=streams))
        return forks[-1]

    yield make
    for one in forks:
        one.kill()
        one.wait(10)


def wait_for(word: str, file: Path) -> None:
    bound = monotonic() + 20
    while word not in (said := file.read_text()):
        assert monotonic() < bound, said
        sleep(0.01)


def test_it_is_what_a_start_would_have_made(fork: Callable[..., Fork], tmp_path: Path) -> None:
    environment = {"LANG": "C.UTF-8", "PYTHONPATH": "/nowhere", "SERVICE_BIND": "x" * 100_000}
    assert fork("", **environment).wait(20) == 0
    forked = json.loads((tmp_path / "out").read_text())
    started = json.loads(
        subprocess.run(
            [sys.executable, "-m", "program", ""],
            cwd=tmp_path, env=environment, input="asked\n", capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip

    assert (tmp_path / "err").read_text() == "done\n"
    assert forked == started
    assert forked["path"] == str(tmp_path)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('no')", 1),
        ("raise ValueError", 1),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.abort()", -signal.SIGABRT),
    ],
)
def test_its_code_is_that_of_a_process(fork: Callable[..., Fork], line: str, code: int) -> None:
    ended = fork(line)

    assert ended.wait(20) == code
    assert ended.poll() == ended.returncode == code


def test_it_hears_signals_and_is_waited_for(fork: Callable[..., Fork], tmp_path: Path) -> None:
    other = fork(WAIT)
    running = fork(WAIT)
    wait_for("waits", tmp_path / "err")

    assert running.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(0.01)
    begun = monotonic()
    running.send_signal(signal.SIGKILL)
    assert running.wait(10) == -signal.SIGKILL
    assert monotonic() - begun < 5
    running.send_signal(signal.SIGKILL)  # to nobody
    assert not Path(f"/proc/{running.pid}").exists()
    assert other.poll() is None


def test_ctrl_c_is_for_the_forks(server: ForkServer, fork: Callable[..., Fork], tmp_path: Path) -> None:
    """All of a terminal's group get it; the server goes when nobody asks it any more."""
    running = fork(WAIT)
    wait_for("waits", tmp_path / "err")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGINT)
    running.send_signal(signal.SIGINT)

    assert running.wait(10) == -signal.SIGINT
    assert "KeyboardInterrupt" in (tmp_path / "err").read_text()
    assert fork("").wait(20) == 0


def test_it_goes_when_it_is_closed_and_leaves_the_forks(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import signal\nsignal.pause()\n")
    with closing(ForkServer()) as server, Path(os.devnull).open("r+") as nothing:
        command = (sys.executable, "-m", "program")
        forked = server.fork(command, directory=tmp_path, environment={}, streams=[nothing.fileno()] * 3)
        assert server.pid is not None
        assert descendants(server.pid) == [forked.pid]
    try:
        assert not Path(f"/proc/{server.pid}").exists()
        with pytest.raises(RuntimeError, match="the server of forks has ended"):
            forked.poll()
    finally:
        os.kill(forked.pid, signal.SIGKILL)


ASKING = """
import os, signal, sys
from pathlib import Path
from service.platform.testing.forkserver import ForkServer
with Path(os.devnull).open("r+") as nothing:
    command = (sys.executable, "-m", "program")
    forked = ForkServer().fork(command, directory=Path.cwd(), environment={}, streams=[nothing.fileno()] * 3)
print(forked.pid, flush=True)
signal.pause()
"""


def test_nothing_that_was_forked_outlives_a_suite_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import signal\nsignal.pause()\n")
    command = [sys.executable, "-c", ASKING]
    asking = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    assert asking.stdout is not None
    with asking.stdout as said:
        forked = int(said.readline())
    asking.kill()
    asking.wait()

    limit = monotonic() + 60
    while Path(f"/proc/{forked}").exists():
        assert monotonic() < limit
        sleep(0.02)


def test_that_it_was_killed_is_said_to_whoever_asks(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("")
    with closing(ForkServer()) as server, Path(os.devnull).open("r+") as nothing:
        streams = [nothing.fileno()] * 3
        ask = partial(
            server.fork, (sys.executable, "-m", "program"), directory=tmp_path, environment={}, streams=streams
        )
        assert ask().wait(20) == 0
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)

        with pytest.raises(RuntimeError, match="the server of forks has ended"):
            ask()


@pytest.mark.parametrize(
    ("command", "changes", "can_be"),
    [
        ([sys.executable, "-m", "service", "serve"], {}, True),
        ([sys.executable, "-m", "service", "serve"], {"SERVICE_BIND": "x"}, True),
        ([sys.executable, "-m", "service", "serve"], {"PYTHONDEVMODE": "1"}, False),
        ([sys.executable, "-m", "service", "serve"], {"LD_PRELOAD": "faketime.so"}, False),
        ([sys.executable, "-c", "pass"], {}, False),
        ([sys.executable, "-X", "dev", "-m", "service"], {}, False),
        (["env", sys.executable, "-m", "service"], {}, False),
        ([str(Path(sys.executable).with_name("service")), "serve"], {}, False),
    ],
)
def test_only_what_would_be_no_other_process_is_forked(
    server: ForkServer, tmp_path: Path, command: list[str], changes: dict[str, str], *, can_be: bool
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    assert server.can_be(command, directory=tmp_path, environment=environment | changes) is can_be


def test_a_clone_has_code_of_its_own(server: ForkServer, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "service", "check")
    assert server.can_be(command, directory=tmp_path, environment=environment)
    (tmp_path / "service").mkdir()

    assert not server.can_be(command, directory=tmp_path, environment=environment)
