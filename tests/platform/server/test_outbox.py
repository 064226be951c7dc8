"""What may wait for one slow peer, and in which order it gets it: over a pipe, in virtual time, without a socket."""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from service.platform.server.outbox import PIECE, Outbox, TooSlowError

CAPACITY = 4096  # bytes that the pipe holds
PATIENCE = 3.0  # seconds of write_timeout
MAX_FRAMES, MAX_BYTES = 8, 100_000


class Pipe:
    """A peer that reads when the test says so; `Outbox` needs a descriptor of it, and no more."""

    def __init__(self, outbox_nursery: trio.Nursery) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK)
        fcntl.fcntl(self._writing, fcntl.F_SETPIPE_SZ, CAPACITY)
        self.reasons: list[str] = []
        self.got = b""
        socket: Any = self
        self.outbox = Outbox(
            socket,
            start_soon=outbox_nursery.start_soon,  # type: ignore[arg-type]  # which wants a coroutine function
            fail=self.reasons.append,
            write_timeout=PATIENCE,
            max_frames=MAX_FRAMES,
            max_bytes=MAX_BYTES,
        )

    def fileno(self) -> int:
        return self._writing

    def read(self, size: int = 1 << 20) -> int:
        try:
            data = os.read(self._reading, size)
        except BlockingIOError:
            return 0
        self.got += data
        return len(data)

    async def read_all(self, *, every: float = 0.001, size: int = 1 << 20) -> None:
        """Read until nothing waits."""
        while self.read(size) or self.outbox.waiting_bytes:
            await trio.sleep(every)

    def hang_up(self) -> None:
        os.close(self._reading)
        self._reading = -1

    def close(self) -> None:
        for descriptor in (self._reading, self._writing):
            if descriptor >= 0:
                os.close(descriptor)


@asynccontextmanager
async def open_pipe() -> AsyncIterator[Pipe]:
    async with trio.open_nursery() as nursery:
        pipe = Pipe(nursery)
        try:
            yield pipe
        finally:
            pipe.outbox.close()
            nursery.cancel_scope.cancel()
            pipe.close()


def fill(pipe: Pipe, mark: bytes = b".") -> None:
    """Fill the peer's own room, so that what follows has to wait."""
    pipe.outbox.send_nowait(mark * CAPACITY)
    assert not pipe.outbox.waiting_bytes


async def test_what_the_peer_takes_is_written_at_once_and_starts_no_task(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        pipe.outbox.send_nowait(b"one")
        await pipe.outbox.send(b"two")
        pipe.read()

        assert (pipe.got, pipe.outbox.waiting_bytes, pipe.reasons) == (b"onetwo", 0, [])


async def test_what_waits_comes_whole_and_in_order(autojump_clock: MockClock) -> None:
    frames = [bytes([65 + number]) * 9_999 for number in range(MAX_FRAMES)]
    async with open_pipe() as pipe:
        for _ in range(2):  # the second time, nothing waits any more
            for frame in frames:
                pipe.outbox.send_nowait(frame)
            with trio.fail_after(60):
                await pipe.read_all()

        assert pipe.got == b"".join(frames) * 2
        assert pipe.reasons == []


@pytest.mark.parametrize(("size", "count"), [(10, MAX_FRAMES), (30_000, 3)], ids=["frames", "bytes"])
async def test_what_may_wait_is_bounded_and_one_too_many_says_so(
    autojump_clock: MockClock, size: int, count: int
) -> None:
    async with open_pipe() as pipe:
        fill(pipe)
        for _ in range(count):
            pipe.outbox.send_nowait(b"x" * size)
        waiting = pipe.outbox.waiting_bytes

        with pytest.raises(TooSlowError):
            pipe.outbox.send_nowait(b"x" * size)
        assert pipe.outbox.waiting_bytes == waiting <= MAX_BYTES
        assert pipe.outbox.overflowed


async def test_droppable_frames_make_room_and_are_dropped_themselves(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        fill(pipe)
        for number in range(MAX_FRAMES):
            pipe.outbox.send_nowait(b"%d" % number, droppable=number % 2 == 0)
        pipe.outbox.send_nowait(b"p", droppable=True)  # no room: gone
        pipe.outbox.send_nowait(b"8")  # takes the place of all that may go
        await pipe.read_all()

        assert pipe.got[CAPACITY:] == b"13578"


async def test_a_droppable_frame_of_which_a_part_is_written_stays_whole(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        begun = b"p" * (CAPACITY + 100)
        pipe.outbox.send_nowait(begun, droppable=True)
        for _ in range(MAX_FRAMES - 1):
            pipe.outbox.send_nowait(b"q", droppable=True)
        pipe.outbox.send_nowait(b"m")
        await pipe.read_all()

        assert pipe.got == begun + b"m"


async def test_a_protocol_frame_is_queued_beyond_the_bound(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        fill(pipe)
        for _ in range(MAX_FRAMES):
            pipe.outbox.send_nowait(b"x")
        pipe.outbox.push(b"close")
        await pipe.read_all()

        assert pipe.got.endswith(b"xclose")


async def test_nothing_overtakes_what_waits_though_the_peer_has_room_again(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        pipe.outbox.send_nowait(b"a" * 2 * CAPACITY)
        pipe.read()
        pipe.outbox.push(b"b")
        pipe.outbox.send_nowait(b"c")
        await pipe.read_all()

        assert pipe.got == b"a" * 2 * CAPACITY + b"bc"


async def test_send_returns_when_all_is_taken_and_not_sooner(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe, trio.open_nursery() as nursery:
        fill(pipe)
        sent = trio.Event()

        async def send() -> None:
            await pipe.outbox.send(b"x" * 2 * CAPACITY)
            sent.set()

        nursery.start_soon(send)
        await trio.sleep(1)
        assert not sent.is_set()
        await pipe.read_all()
        await trio.sleep(0.01)

        assert sent.is_set()


async def test_a_cancelled_send_leaves_the_stream_in_step(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        with trio.move_on_after(1) as patience:
            await pipe.outbox.send(b"a" * 2 * CAPACITY)
        pipe.outbox.send_nowait(b"b")
        await pipe.read_all()

        assert patience.cancelled_caught
        assert pipe.got == b"a" * 2 * CAPACITY + b"b"


async def test_a_peer_that_takes_nothing_is_let_go_in_time_and_who_waits_goes_on(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        fill(pipe)
        begun = trio.current_time()
        await pipe.outbox.send(b"x")

        assert trio.current_time() - begun == pytest.approx(PATIENCE)
        assert (pipe.reasons, pipe.outbox.waiting_bytes) == (["write timeout"], 0)
        pipe.outbox.send_nowait(b"y")  # nothing comes any more, and nothing is raised
        assert pipe.reasons == ["write timeout"]


async def test_an_outbox_that_is_closed_keeps_no_task(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        pipe = Pipe(nursery)
        fill(pipe)
        pipe.outbox.send_nowait(b"more")
        await trio.testing.wait_all_tasks_blocked()
        pipe.outbox.close()
        closed = trio.current_time()

    assert trio.current_time() == closed
    assert pipe.reasons == []
    pipe.close()


async def test_a_peer_that_takes_a_trickle_is_let_go_too(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe, trio.open_nursery() as nursery:
        pipe.outbox.send_nowait(b"x" * (PIECE + 2 * CAPACITY))
        begun = trio.current_time()

        async def read_a_little() -> None:
            while True:
                pipe.read(CAPACITY)
                await trio.sleep(1)

        nursery.start_soon(read_a_little)
        while not pipe.reasons:
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()

        assert trio.current_time() - begun < PATIENCE + 0.2


async def test_a_peer_that_takes_each_piece_in_time_stays_however_long_it_takes(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        pipe.outbox.send_nowait(b"x" * 10 * PIECE)
        begun = trio.current_time()
        await pipe.read_all(every=PATIENCE * CAPACITY / PIECE / 2)

        assert len(pipe.got) == 10 * PIECE
        assert trio.current_time() - begun > PATIENCE
        assert pipe.reasons == []


async def test_a_peer_that_hangs_up_is_told_once(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        pipe.outbox.send_nowait(b"x" * 2 * CAPACITY)
        pipe.hang_up()
        await trio.sleep(0.1)
        pipe.outbox.send_nowait(b"y")

        assert (pipe.reasons, pipe.outbox.waiting_bytes) == (["gone"], 0)


async def test_a_peer_that_hung_up_while_nothing_waited_is_told_once_too(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        pipe.hang_up()
        pipe.outbox.send_nowait(b"x")
        pipe.outbox.push(b"y")

        assert (pipe.reasons, pipe.outbox.waiting_bytes, pipe.outbox.is_closed) == (["gone"], 0, True)


async def test_what_is_discarded_is_forgotten_save_the_rest_of_what_was_begun(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        pipe.outbox.send_nowait(b"a" * (CAPACITY + 10))
        pipe.outbox.send_nowait(b"b")
        pipe.outbox.discard()
        pipe.outbox.push(b"close")
        await pipe.read_all()

        assert pipe.got == b"a" * (CAPACITY + 10) + b"close"


async def test_what_has_not_begun_is_discarded_after_what_had(autojump_clock: MockClock) -> None:
    async with open_pipe() as pipe:
        pipe.outbox.send_nowait(b"a" * (CAPACITY + 10))
        pipe.outbox.send_nowait(b"b" * CAPACITY)  # a pipe takes all of it or nothing
        pipe.read()
        await trio.testing.wait_all_tasks_blocked()
        pipe.outbox.discard()
        pipe.outbox.push(b"close")
        await pipe.read_all()

        assert pipe.got == b"a" * (CAPACITY + 10) + b"close"


async def test_what_follows_what_was_discarded_is_written_by_the_same_task(autojump_clock: MockClock) -> None:
    """It still waits for the socket, and two of them cannot."""
    async with open_pipe() as pipe:
        fill(pipe)
        pipe.outbox.send_nowait(b"a")
        await trio.testing.wait_all_tasks_blocked()
        pipe.outbox.discard()
        pipe.read()
        pipe.outbox.push(b"b" * 2 * CAPACITY)
        await trio.testing.wait_all_tasks_blocked()
        await pipe.read_all()

        assert pipe.got[CAPACITY:] == b"b" * 2 * CAPACITY


async def test_what_is_over_has_nothing_left_to_discard(autojump_clock: MockClock) -> None:
    """A member that overflows and is gone in the same moment is closed by its handler before it hears of that."""
    async with open_pipe() as pipe:
        pipe.outbox.send_nowait(b"a" * (CAPACITY + 10))
        await trio.testing.wait_all_tasks_blocked()
        pipe.outbox.close()
        pipe.outbox.discard()
        pipe.outbox.push(b"close")

        assert (pipe.outbox.waiting_bytes, pipe.outbox.is_closed) == (0, True)
