"""What the head of a request may cost: no more than its length, whatever it is made of."""

import re
import time

import h11
import h11._readers
import pytest
import trio
from h11._abnf import header_field
from hypothesis import given
from hypothesis import strategies as st

from service.platform.server import Application
from service.platform.server.config import MAX_HEADER_BYTES
from service.platform.server.protocol import H11Connection
from tests.platform.server.conftest import running
from tests.platform.server.test_turns import LongestStep
from tests.platform.server.wire import Reader

START = b"GET / HTTP/1.1\r\nHost: x\r\n"
BLANKS = (MAX_HEADER_BYTES - 500) // 8


def seconds_of(head: bytes) -> float:
    def once() -> float:
        connection = H11Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        connection.receive_data(head)
        begun = time.thread_time()
        with pytest.raises(h11.RemoteProtocolError):
            connection.next_event()
        return time.thread_time() - begun

    return min(once() for _ in range(5))


def test_blanks_ahead_of_a_value_that_is_none_are_read_once() -> None:
    """A head of 16 KiB, which any stranger may send, held the event loop for two thirds of a second."""
    short, long = (seconds_of(START + b"A:" + b" " * blanks + b"\0\r\n\r\n") for blanks in (BLANKS, 8 * BLANKS))

    assert long < 32 * short  # 64 times where each blank is gone back to


@given(st.lists(st.sampled_from([b"a", b":", b" ", b"\t", b"\0", b"\x0b", b"\r", b"\n", b"\xff"])).map(b"".join))
def test_a_field_is_what_it_is_to_h11(rest: bytes) -> None:
    patterns = re.compile(header_field.encode()), h11._readers.header_field_re
    theirs, ours = (pattern.fullmatch(b"a:" + rest) for pattern in patterns)

    assert (theirs and theirs.groupdict()) == (ours and ours.groupdict())


def test_a_head_that_is_too_long_is_not_taken_apart() -> None:
    """In one packet came four times as much as is allowed."""
    within = seconds_of(START + b"a:\r\n" * (MAX_HEADER_BYTES // 4 - 20) + b"\0\r\n\r\n")

    assert seconds_of(START + b"a:\r\n" * (MAX_HEADER_BYTES - 20) + b"\r\n") < within / 4


async def test_others_have_their_turn_between_the_probes_of_one_packet(safe_app: Application) -> None:
    """Two thousand of them held the event loop for a tenth of a second."""
    probe, longest = b"GET /livez HTTP/1.1\r\nhost:x\r\n\r\n", LongestStep()

    async def longest_of(count: int, server_port: int) -> float:
        found = []
        for _ in range(3):
            longest.seconds = 0
            async with await trio.open_tcp_stream("127.0.0.1", server_port) as client:
                await client.send_all(probe * (count - 1) + probe[:-2] + b"connection: close\r\n\r\n")
                await Reader(client).rest()
            found.append(longest.seconds)
        return min(found)

    async with running(safe_app, probes={"/livez": lambda: (200, b"ok")}) as server:
        trio.lowlevel.add_instrument(longest)
        few, many = await longest_of(20, server.port), await longest_of(1_500, server.port)
        trio.lowlevel.remove_instrument(longest)

    assert many < 15 * few
