"""Who comes with a crowd is let in before anybody of it is served, and nobody waits for long."""

import contextlib
import select
import socket
import sys
from collections import Counter

import pytest
import trio
import trio.abc
import trio.testing

from service.platform.server import Application, open_listener
from service.platform.server.doorway import GROUP, PATIENCE, Doorway
from tests.platform.server.conftest import running
from tests.platform.server.wire import get

CROWD = 200


@pytest.fixture
def listener() -> socket.socket:
    listening = open_listener("127.0.0.1:0")
    listening.listen()
    return listening


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    number = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        self.number += 1


def knock(listener: socket.socket, number: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname()) for _ in range(number)]


async def test_without_a_crowd_nobody_waits(listener: socket.socket) -> None:
    with listener, trio.testing.assert_no_checkpoints():
        await Doorway(listener).pass_through()


async def test_requests_wait_until_the_last_who_knocked_is_let_in_and_then_go_on_a_few_at_a_time(
    listener: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    doorway, turns = Doorway(listener), Turns()
    passed: list[int] = []

    async def enter() -> None:
        await doorway.pass_through()
        passed.append(turns.number)

    trio.lowlevel.add_instrument(turns)
    with listener, contextlib.ExitStack() as peers:
        for peer in knock(listener, 2):
            peers.enter_context(peer)
        async with trio.open_nursery() as nursery:
            for _ in range(2 * GROUP + 1):
                nursery.start_soon(enter)
            await trio.testing.wait_all_tasks_blocked()
            assert passed == []

            listener.accept()[0].close()
            doorway.notice()
            await trio.testing.wait_all_tasks_blocked()
            assert passed == []

            listener.accept()[0].close()
            doorway.notice()

    assert len(passed) == 2 * GROUP + 1
    assert 0 < max(Counter(passed).values()) <= GROUP


async def test_a_crowd_that_never_ends_keeps_nobody_for_long(
    listener: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    doorway = Doorway(listener)
    with listener, knock(listener, 1)[0]:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3 * GROUP):
                nursery.start_soon(doorway.pass_through)

    assert trio.current_time() - started == pytest.approx(PATIENCE)


async def test_those_behind_go_on_when_the_first_who_waits_has_gone(
    listener: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    doorway, first = Doorway(listener), trio.CancelScope()

    async def wait_first() -> None:
        with first:
            await doorway.pass_through()

    with listener, knock(listener, 1)[0], trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_first)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(doorway.pass_through)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()


async def test_behind_a_closed_listener_nobody_waits(listener: socket.socket) -> None:
    doorway = Doorway(listener)
    listener.close()

    with trio.testing.assert_no_checkpoints():
        await doorway.pass_through()


class Most(trio.abc.Instrument):
    """Notes how many tasks there ever were at once."""

    tasks = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # Trio's signature
        self.tasks = max(self.tasks, trio.lowlevel.current_statistics().tasks_living)


async def test_nothing_is_made_for_the_requests_of_a_crowd_before_the_last_of_it_is_let_in(
    safe_app: Application, listener: socket.socket, mock_clock: trio.testing.MockClock
) -> None:
    """So the last, who may be a probe, waits for a crowd to be accepted and for nothing else.

    The clock stands still: nobody runs out of patience on a busy machine.
    """
    async with running(safe_app, listener=listener) as server:
        async with await server.connect() as first:
            await first.send_all(get("/"))
            await first.receive_some()
        before, most = trio.lowlevel.current_statistics().tasks_living, Most()
        crowd = knock(listener, CROWD)
        for peer in crowd:
            peer.sendall(get("/"))
        trio.lowlevel.add_instrument(most)
        answers = {await trio.to_thread.run_sync(peer.recv, 12) for peer in crowd}
        trio.lowlevel.remove_instrument(most)
        for peer in crowd:
            peer.close()

    assert answers == {b"HTTP/1.1 200"}
    assert CROWD < most.tasks - before < 1.5 * CROWD  # some groups are on their way at once


@pytest.mark.skipif(sys.platform != "linux", reason="another kernel cannot be told to take no more")
async def test_once_the_last_is_let_in_the_kernel_takes_nobody_whom_the_close_would_reset(
    listener: socket.socket,
) -> None:
    with listener:
        await Doorway(listener).let_in_last()

        with socket.socket() as late:
            late.setblocking(False)
            late.connect_ex(listener.getsockname())
            readable, writable, _ = select.select([], [late], [], 0.3)
            assert (readable, writable) == ([], [])
