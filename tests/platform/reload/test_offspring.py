"""What a parent says to a child arrives message by message, and its end is noticed whatever it leaves behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.reload.channel import Message, encode
from service.platform.reload.offspring import MARGIN, Offspring, start


async def test_what_is_said_beside_a_long_message_comes_behind_it() -> None:
    """The list of modules of a large service, to a child that reads nothing yet, and the word that it is its turn."""
    ours, theirs = socket.socketpair()
    heard: list[Message] = []

    def read() -> None:
        with theirs, theirs.makefile("rb") as said:
            heard.extend(json.loads(said.readline()) for _ in range(2))

    process = subprocess.Popen(["true"])  # noqa: ASYNC220  it ends at once
    with process, trio.socket.from_stdlib_socket(ours) as line, trio.fail_after(60):
        child = Offspring(process, line)
        async with trio.open_nursery() as nursery:
            for message in ({"load": ["a_module_of_a_package"] * 50_000}, {"takes_over": True}):
                nursery.start_soon(child.say, message)
                await wait_all_tasks_blocked()
            await trio.to_thread.run_sync(read)

    assert [list(message) for message in heard] == [["load"], ["takes_over"]]


FORKS = """
import os
import signal

if not os.fork():
    with open(os.environ["FORKED"] + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(file.name, os.environ["FORKED"])
    signal.pause()
"""


async def test_the_end_of_a_child_is_noticed_while_a_process_that_it_forked_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a pool of processes does that nobody shuts down: a fork has whatever was open."""
    (tmp_path / "a_package_that_forks.py").write_text(FORKS)
    forked = tmp_path / "forked"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FORKED", str(forked))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            child = start(["dev"])
            nursery.start_soon(child.run, {}, trio.Lock())
            await child.say({"load": ["a_package_that_forks"]})
            while not forked.exists():  # noqa: ASYNC110  another process makes it
                await trio.sleep(0.01)
            try:
                child.signal(signal.SIGKILL)
                with trio.move_on_after(10):
                    await child.ended.wait()
                assert child.ended.is_set()
            finally:
                os.kill(int(forked.read_text()), signal.SIGKILL)
    assert child.code == 128 + signal.SIGKILL


async def test_the_terminal_is_given_back_by_the_child_that_had_it_and_by_no_other() -> None:
    """One is at a prompt, and another, which waits for its turn, ends meanwhile; then the first is killed."""
    terminal = trio.Lock()
    with trio.fail_after(60), open_child("cat") as (prompting, asks), open_child("cat") as (waiting, asks_too):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prompting.run, {}, terminal)
            await asks.send(encode({"want": "terminal"}))
            assert await asks.recv(100) == encode({})
            nursery.start_soon(waiting.run, {}, terminal)
            await asks_too.send(encode({"want": "terminal"}))
            while not terminal.statistics().tasks_waiting:
                await trio.lowlevel.checkpoint()

            waiting.signal(signal.SIGKILL)
            await waiting.ended.wait()
            assert (prompting.at_prompt, terminal.locked()) == (True, True)

            prompting.signal(signal.SIGKILL)
            await prompting.ended.wait()
            assert (prompting.at_prompt, terminal.locked()) == (False, False)


async def test_a_child_that_ends_without_having_read_what_it_was_told_is_one_that_has_ended() -> None:
    """As one that is killed: the kernel tells us of it by an error, at what we read and at what we say."""
    with trio.fail_after(60), open_child("cat") as (child, end):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run, {}, trio.Lock())
            await child.say({"takes_over": True})
            end.close()
            await wait_all_tasks_blocked()
            await child.say({"takes_over": True})
            child.signal(signal.SIGKILL)

    assert child.ended.is_set()


# Says that it is there; at SIGTERM it ends with 5 or goes on, and with 7 when nothing more is to be read.
DRAINS = """
import signal, sys
signal.signal(signal.SIGTERM, (lambda *_: sys.exit(5)) if sys.argv[1] == "ends" else signal.SIG_IGN)
print(flush=True)
sys.stdin.read()
sys.exit(7)
"""


@pytest.mark.parametrize(
    ("does", "at_prompt", "seconds", "code"),
    [
        ("ends", False, 0, 5),
        ("goes on", False, 60 + MARGIN - 1, 7),
        ("goes on", False, 60 + MARGIN + 1, 128 + signal.SIGKILL),
        ("goes on", True, 600, 7),
    ],
    ids=["drained", "draining", "over its bound", "at a prompt"],
)
async def test_a_child_has_the_time_of_its_drain_and_at_a_prompt_as_long_as_it_takes(
    mock_clock: MockClock, does: str, at_prompt: bool, seconds: float, code: int
) -> None:
    with open_child(sys.executable, "-c", DRAINS, does) as (child, _):
        assert child.process.stdin
        assert child.process.stdout
        await trio.to_thread.run_sync(child.process.stdout.readline)
        child.told, child.at_prompt = {"drain_bound": 60}, at_prompt
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run, {}, trio.Lock())
            nursery.start_soon(child.end)
            await wait_all_tasks_blocked()
            mock_clock.jump(seconds)
            await wait_all_tasks_blocked()
            child.process.stdin.close()
            await trio.to_thread.run_sync(child.process.wait)
            mock_clock.jump(1)  # to the next look at it
            await child.ended.wait()

        assert child.code == code


@contextmanager
def open_child(*command: str) -> Iterator[tuple[Offspring, trio.socket.SocketType]]:
    """Yield a child that runs this, and its end of the line."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process, trio.socket.from_stdlib_socket(theirs) as end:
        yield Offspring(process, trio.socket.from_stdlib_socket(ours)), end
        process.kill()
