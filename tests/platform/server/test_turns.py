"""C6: a packet may hold ten thousand frames; the others have their turn meanwhile."""

import time
from contextlib import AbstractAsyncContextManager

import trio
from quart_trio import QuartTrio

from service.platform.server import Application
from tests.platform.server.conftest import Server, running, running_bare
from tests.platform.server.wire import TEXT, Reader, frame, get, upgrade

PACKET = frame(TEXT, fin=False) + frame(0, fin=False) * 10_000 + frame(0, b"end")


class LongestStep(trio.abc.Instrument):
    """The CPU seconds of the longest stretch in which no other task had its turn."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = time.thread_time()

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        self._started = time.thread_time()

    def after_task_step(self, _: trio.lowlevel.Task) -> None:
        self.seconds = max(self.seconds, time.thread_time() - self._started)


async def longest_step(serving: AbstractAsyncContextManager[Server]) -> float:
    """Return the longest step of a server, of which one packet asks a lot, and that takes it for one message."""
    longest = LongestStep()
    async with serving as server, await server.connect() as client, await server.connect() as other:
        await other.send_all(get("/"))
        await Reader(other).response()
        reader = await upgrade(client)
        trio.lowlevel.add_instrument(longest)
        await client.send_all(PACKET)
        assert (await reader.frame())[1] == b"end"
        trio.lowlevel.remove_instrument(longest)
    return longest.seconds


async def test_trap_a_packet_of_tiny_frames_is_handled_in_one_go_by_the_stack_as_it_comes(
    bare_app: QuartTrio, safe_app: Application
) -> None:
    bare, ours = await longest_step(running_bare(bare_app)), await longest_step(running(safe_app))

    print(f"the longest step: {bare * 1000:.1f} ms as it comes, {ours * 1000:.1f} ms of ours")
    assert ours < bare / 4
