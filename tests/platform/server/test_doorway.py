"""Who comes with a crowd is let in before anybody of it is served, and nobody waits for long."""

import socket

import pytest
import trio
import trio.testing

from service.platform.server import open_listener
from service.platform.server.doorway import GROUP, PATIENCE, Doorway


@pytest.fixture
def listener() -> socket.socket:
    listening = open_listener("127.0.0.1:0")
    listening.listen()
    return listening


def knock(listener: socket.socket, number: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname()) for _ in range(number)]


async def test_without_a_crowd_nobody_waits(listener: socket.socket) -> None:
    with listener, trio.testing.assert_no_checkpoints():
        await Doorway(listener).pass_through()


async def test_requests_wait_until_the_last_who_knocked_is_let_in_and_then_go_on_a_few_at_a_time(
    listener: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    doorway = Doorway(listener)
    passed: list[int] = []

    async def enter(number: int) -> None:
        await doorway.pass_through()
        passed.append(number)

    with listener:
        peers = knock(listener, 2)
        async with trio.open_nursery() as nursery:
            for number in range(2 * GROUP + 1):
                nursery.start_soon(enter, number)
            await trio.testing.wait_all_tasks_blocked()
            assert passed == []

            listener.accept()[0].close()
            doorway.notice()
            await trio.testing.wait_all_tasks_blocked()
            assert passed == []

            listener.accept()[0].close()
            doorway.notice()
            await trio.lowlevel.checkpoint()
            assert 0 < len(passed) <= GROUP
        assert len(passed) == 2 * GROUP + 1
        for peer in peers:
            peer.close()


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
