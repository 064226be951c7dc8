"""What a parent says to a child arrives message by message, and its end is noticed whatever it leaves behind."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from service.platform.reload.channel import Message, encode
from service.platform.reload.offspring import Offspring, start


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


@contextmanager
def open_child(program: str) -> Iterator[tuple[Offspring, trio.socket.SocketType]]:
    """Yield a child that runs this, and its end of the line."""
    ours, theirs = socket.socketpair()
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process, trio.socket.from_stdlib_socket(theirs) as end:
        yield Offspring(process, trio.socket.from_stdlib_socket(ours)), end
        process.kill()
