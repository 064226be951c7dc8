"""Who has been idle longest goes first, and whoever was asked meanwhile stays."""

import trio
import trio.testing

from service.platform.server.idle import IdleConnections


class Connection:
    """Notes when it is let go."""

    ended = 0.0

    def end_idle(self) -> None:
        self.ended = trio.current_time()


async def test_each_goes_when_its_own_time_is_over(autojump_clock: trio.testing.MockClock) -> None:
    idle = IdleConnections(10)
    begun = trio.current_time()
    early, asked, left, late = (Connection() for _ in range(4))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle.watch)
        for connection in (early, asked, left):
            idle.add(connection)
        await trio.sleep(4)
        idle.discard(asked)
        idle.add(late)
        await trio.sleep(4)
        idle.add(asked)
        idle.discard(left)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    assert [one.ended - begun for one in (early, late, asked)] == [10, 14, 18]
    assert not left.ended


async def test_one_that_comes_when_nobody_was_there_goes_on_time(autojump_clock: trio.testing.MockClock) -> None:
    idle = IdleConnections(10)
    begun = trio.current_time()
    connection = Connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle.watch)
        await trio.sleep(35)
        idle.add(connection)
        await trio.sleep(7)
        idle.add(connection)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    assert connection.ended - begun == 52
