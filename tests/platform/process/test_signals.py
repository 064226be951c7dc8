"""What the process makes of the signals that ask it to end, in virtual time: an echo is known by its seconds."""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, Signals

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from service.platform.lifecycle import Lifecycle
from service.platform.process.addresses import Urls, announce
from service.platform.process.main import obey
from service.platform.process.start import ECHO
from service.platform.server import open_listener
from service.platform.testing.fixtures import MakeSettings

BOUND = 20.0  # seconds of the drain


class EndedAtOnce(Exception):
    """In place of the end of the process."""


@pytest.mark.parametrize(
    ("signals", "code", "at"),
    [
        ([(0, SIGTERM)], 1, BOUND),
        ([(0, SIGINT), (ECHO - 0.01, SIGINT)], 1, BOUND),
        ([(0, SIGINT), (ECHO - 0.01, SIGINT), (3, SIGINT)], 128 + SIGINT, 3),
        ([(0, SIGTERM), (ECHO + 0.01, SIGTERM)], 128 + SIGTERM, ECHO + 0.01),
        ([(0, SIGHUP), (ECHO + 0.01, SIGHUP), (5, SIGHUP)], 1, BOUND),
        ([(0, SIGHUP), (5, SIGTERM)], 128 + SIGTERM, 5),
    ],
    ids=[
        "one",
        "an echo",
        "an echo and a second",
        "a second",
        "a terminal that goes",
        "a terminal that goes, and then",
    ],
)
async def test_a_second_signal_ends_the_drain_and_an_echo_does_not(
    autojump_clock: MockClock, signals: list[tuple[float, Signals]], code: int, at: float
) -> None:
    lifecycle, begun = Lifecycle(), trio.current_time()

    async def arriving() -> AsyncIterator[int]:
        for moment, number in signals:
            await trio.sleep_until(begun + moment)
            yield number
        await trio.sleep_forever()

    def end(code: int) -> None:
        raise EndedAtOnce(code)

    with pytest.raises(EndedAtOnce) as ended:
        await obey(arriving(), lifecycle, BOUND, end)

    assert ended.value.args == (code,)
    assert trio.current_time() - begun == pytest.approx(at)
    assert lifecycle.draining


async def test_a_process_that_drains_is_not_told_to_be_ready(make_settings: MakeSettings, tmp_path: Path) -> None:
    """One that takes over answers operators first, and a drain may begin meanwhile."""
    settings = make_settings(ready_file=tmp_path / "ready.json")
    lifecycle, told = Lifecycle(), list[Urls]()
    lifecycle.mark_ready()
    with open_listener("127.0.0.1:0") as operators, capture_logs() as logs:
        lifecycle.start_draining()
        await announce(settings, lifecycle, operators, on_ready=told.append)

    assert (logs, told, list(tmp_path.iterdir())) == ([], [], [])


LATE = """
import atexit, os, signal, sys, threading

number = signal.Signals(int(sys.argv[1]))
signal.signal(number, signal.SIG_DFL)  # whatever whoever runs the tests wants ignored
from service.platform.process.end import ending
from service.platform.process.start import end_at_signals

end_at_signals()
with ending():
    atexit.register(signal.pthread_kill, threading.get_ident(), number)
"""


@pytest.mark.parametrize("number", [SIGTERM, SIGINT, SIGHUP])
def test_a_signal_in_the_last_moment_changes_no_exit_code(number: Signals) -> None:
    assert subprocess.run([sys.executable, "-c", LATE, str(number.value)], check=False, timeout=30).returncode == 0


AT_THE_END = """
import signal, sys

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # whatever whoever runs the tests wants ignored
from service.platform.process.end import ending
from service.platform.process.start import end_at_signals, ending_signals

end_at_signals()

async def main():
    with heard(ending_signals()):
        signal.raise_signal(signal.SIGTERM)
        await trio.lowlevel.checkpoint()  # it has arrived, and nobody reads it
        signal.raise_signal(signal.SIGHUP)  # the loop hears of it only when this is over
        if sys.argv[1:]:
            raise LookupError("what went wrong")

with ending():
    import trio
    from service.platform.process.main import heard
    trio.run(main)
"""


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["fails"], 1)])
def test_a_signal_that_comes_when_all_is_over_hides_neither_an_end_nor_a_crash(arguments: list[str], code: int) -> None:
    command = [sys.executable, "-c", AT_THE_END, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)

    assert (done.returncode, "LookupError: what went wrong" in done.stderr) == (code, code != 0)
    assert "TrioInternalError" not in done.stderr


CRASHES = """
import errno, os
from service.platform.process.end import ending

with ending():
    raise {crash}
"""


@pytest.mark.parametrize(
    ("crash", "told"),
    [
        ("LookupError('what')", "Traceback (most recent call last)"),
        ("OSError(errno.EMFILE, os.strerror(errno.EMFILE))", "Traceback (most recent call last)"),
        ("OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'a/file')", "Traceback (most recent call last)"),
        ("OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))", "the output cannot be written: No space left on device\n"),
        ("SystemExit('a sentence')", "a sentence\n"),
    ],
)
def test_a_crash_is_told_whole_and_an_output_that_is_full_in_a_sentence(crash: str, told: str) -> None:
    command = [sys.executable, "-c", CRASHES.format(crash=crash)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    assert done.stderr.startswith(told)
    assert "During handling" not in done.stderr


def test_what_was_said_last_is_written() -> None:
    """Also where it is kept until there is more of it, as it is unless PYTHONUNBUFFERED is set."""
    said = "from service.platform.process.end import ending\nwith ending():\n    print('last words', end='')"
    done = subprocess.run([sys.executable, "-E", "-c", said], check=False, capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stdout) == (0, "last words")


STARVED = """
import resource, sys, threading
from pathlib import Path
from service.platform.process.end import ending

with ending():
    threading.stack_size(1 << 20)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[1]),) * 2)
    sys.exit(3)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no such limit")
@pytest.mark.parametrize("left", [0, *((1 << 20) + pages * 4096 for pages in range(9))])
def test_a_process_that_finds_no_memory_for_a_last_thread_ends_with_its_code(left: int) -> None:
    """Not even for its stack, or for that and not for its first step: such a thread never says that it has begun."""
    command = [sys.executable, "-c", STARVED, str(left)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)

    assert (done.returncode, "Traceback" in done.stderr) == (3, False)


BLOCKED = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
code = "import os, signal; from service.platform.process.start import end_at_signals; end_at_signals(); {}"
os.execv(sys.executable, [sys.executable, "-c", code.format("os.kill(os.getpid(), signal.SIGTERM); print('deaf')")])
"""


def test_signals_that_whoever_started_it_has_blocked_are_heard() -> None:
    """As by a supervisor that waits for its own with `sigwait`: what it starts inherits that."""
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (128 + SIGTERM, b"", b"")


IGNORED = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
code = "from service.platform.process.start import end_at_signals; end_at_signals(); import subprocess, sys; {}"
failing = "print(subprocess.run([sys.executable, '-c', 'raise SystemExit(7)']).returncode)"
os.execv(sys.executable, [sys.executable, "-c", code.format(failing)])
"""


def test_how_a_child_ended_is_known_also_where_whoever_started_it_ignores_that_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", IGNORED], capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"7\n", b"")
