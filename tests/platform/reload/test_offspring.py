"""What a parent says to a child arrives message by message, however much it is."""

import json
import socket
import subprocess

import trio
from trio.testing import wait_all_tasks_blocked

from service.platform.reload.channel import Message
from service.platform.reload.offspring import Offspring


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
