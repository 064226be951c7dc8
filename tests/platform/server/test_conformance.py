"""Websockets frame by frame, in the manner of the Autobahn suite: a table of what is sent and what must come back."""

from dataclasses import dataclass

import pytest
import trio

from service.platform.server import Application
from tests.platform.server.conftest import running
from tests.platform.server.wire import BINARY, CLOSE, PING, PONG, TEXT, frame, upgrade

CONTINUATION = 0x0
STOP = frame(CLOSE, b"\x0f\xff")
MAX = 65_536  # the setting's default
EURO = "€".encode()


@dataclass(frozen=True)
class Case:
    """`sent` goes out in pieces of `chop` bytes. An echo server answers `echoed`, then closes with `code`.

    A fault closes at once: what came whole in the same packet before it is not answered any more, as RFC 6455, 7.1.7
    allows.
    """

    sent: bytes
    echoed: tuple[tuple[int, bytes], ...] = ()
    code: int | None = None  # None: it stays open
    chop: int = 1 << 20


def text(payload: bytes) -> tuple[int, bytes]:
    return (TEXT, payload)


CASES = {
    # 1: framing
    "empty text": Case(frame(TEXT), (text(b""),)),
    "empty binary": Case(frame(BINARY), ((BINARY, b""),)),
    **{f"text of {n}": Case(frame(TEXT, b"*" * n), (text(b"*" * n),)) for n in (1, 125, 126, 127, 128, 65535, MAX)},
    **{f"binary of {n}": Case(frame(BINARY, b"\xfe" * n), ((BINARY, b"\xfe" * n),)) for n in (125, 126, 65535, MAX)},
    "text of 65535 in pieces": Case(frame(TEXT, b"*" * 65535), (text(b"*" * 65535),), chop=997),
    "byte by byte": Case(frame(TEXT, b"hello") + frame(BINARY, b"x"), (text(b"hello"), (BINARY, b"x")), chop=1),
    # 2: pings and pongs
    "ping": Case(frame(PING), ((PONG, b""),)),
    "ping with payload": Case(frame(PING, b"\x00\xff\xfe"), ((PONG, b"\x00\xff\xfe"),)),
    "ping of 125": Case(frame(PING, b"\xfe" * 125), ((PONG, b"\xfe" * 125),)),
    "ping of 126": Case(frame(PING, b"\xfe" * 126), code=1002),
    "ping byte by byte": Case(frame(PING, b"\xfe" * 125), ((PONG, b"\xfe" * 125),), chop=1),
    "unsolicited pong": Case(frame(PONG, b"x") + frame(PING, b"y"), ((PONG, b"y"),)),
    "ten pings": Case(frame(PING, b"p") * 10, ((PONG, b"p"),) * 10),
    # 3: reserved bits
    **{f"reserved bits {rsv}": Case(frame(TEXT, b"x", rsv=rsv), code=1002) for rsv in range(1, 8)},
    "reserved bit after a message": Case(frame(TEXT, b"a") + frame(TEXT, b"b", rsv=4) + frame(PING), code=1002),
    "reserved bit on a ping": Case(frame(PING, b"x", rsv=2), code=1002),
    # 4: opcodes
    **{f"opcode {opcode:x}": Case(frame(opcode, b"x"), code=1002) for opcode in (*range(3, 8), *range(0xB, 0x10))},
    # 5: fragmentation
    "ping in fragments": Case(frame(PING, b"a", fin=False) + frame(CONTINUATION, b"b"), code=1002),
    "pong in fragments": Case(frame(PONG, b"a", fin=False) + frame(CONTINUATION, b"b"), code=1002),
    "text in two": Case(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"), (text(b"ab"),)),
    "text in two, byte by byte": Case(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"), (text(b"ab"),), chop=1),
    "text in five with pings between": Case(
        frame(TEXT, b"1", fin=False)
        + frame(PING, b"x")
        + b"".join(frame(CONTINUATION, b"%d" % n, fin=False) + frame(PING, b"y") for n in (2, 3, 4))
        + frame(CONTINUATION, b"5"),
        ((PONG, b"x"), (PONG, b"y"), (PONG, b"y"), (PONG, b"y"), text(b"12345")),
    ),
    "empty fragments": Case(
        frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION), (text(b""),)
    ),
    "continuation of nothing": Case(frame(CONTINUATION, b"x"), code=1002),
    "unfinished continuation of nothing": Case(frame(CONTINUATION, b"x", fin=False), code=1002),
    "text within text": Case(frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), code=1002),
    "binary within text": Case(frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), code=1002),
    "continuation after the end": Case(
        frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b") + frame(CONTINUATION, b"c"), code=1002
    ),
    # 6: UTF-8
    "euro": Case(frame(TEXT, EURO), (text(EURO),)),
    "euro in fragments within the character": Case(
        frame(TEXT, EURO[:1], fin=False) + frame(CONTINUATION, EURO[1:]), (text(EURO),)
    ),
    "euro byte by byte": Case(frame(TEXT, EURO), (text(EURO),), chop=1),
    "the last code point": Case(frame(TEXT, b"\xf4\x8f\xbf\xbf"), (text(b"\xf4\x8f\xbf\xbf"),)),
    "beyond the last code point": Case(frame(TEXT, b"\xf4\x90\x80\x80"), code=1007),
    "a surrogate": Case(frame(TEXT, b"\xed\xa0\x80"), code=1007),
    "an overlong slash": Case(frame(TEXT, b"\xc0\xaf"), code=1007),
    "a continuation byte alone": Case(frame(TEXT, b"\x80"), code=1007),
    "an unfinished character": Case(frame(TEXT, EURO[:2]), code=1007),
    "an unfinished character before a fragment": Case(
        frame(TEXT, EURO[:2], fin=False) + frame(CONTINUATION, b"x"), code=1007
    ),
    "any bytes in a binary message": Case(frame(BINARY, b"\xff\x80\xc0"), ((BINARY, b"\xff\x80\xc0"),)),
    # 7: closing
    "close": Case(frame(CLOSE), code=1005),
    "close with one byte": Case(frame(CLOSE, b"x"), code=1002),
    **{
        f"close {code}": Case(frame(CLOSE, code.to_bytes(2)), code=code)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"close {code}, which is not for the wire": Case(frame(CLOSE, code.to_bytes(2)), code=1002)
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "close with reason": Case(frame(CLOSE, b"\x03\xe8" + b"*" * 123), code=1000),
    "close with too long a reason": Case(frame(CLOSE, b"\x03\xe8" + b"*" * 124), code=1002),
    "close with a reason that is no text": Case(frame(CLOSE, b"\x03\xe8\xff"), code=1007),
    "text after close": Case(frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"x"), code=1000),
    "close twice": Case(frame(CLOSE, b"\x03\xe8") * 2, code=1000),
    "ping after close": Case(frame(CLOSE, b"\x03\xe8") + frame(PING), code=1000),
    "close within a message": Case(frame(TEXT, b"a", fin=False) + frame(CLOSE, b"\x03\xe8"), code=1000),
    # 9: limits
    "one byte too long": Case(frame(BINARY, bytes(MAX + 1)), code=1009),
    "too long in fragments": Case(frame(BINARY, bytes(MAX), fin=False) + frame(CONTINUATION, b"x"), code=1009),
    "bytes count, and not characters": Case(frame(TEXT, EURO * (MAX // 3 + 1)), code=1009),
    "far too long": Case(frame(BINARY, bytes(4 << 20)), code=1009),
    # masks
    "a frame without a mask": Case(frame(TEXT, b"x", masked=False), code=1002),
    # lengths
    "a length in more bytes than needed": Case(b"\x81\xfe\x00\x01\x00\x00\x00\x00x", code=1002),
}


@pytest.mark.parametrize("name", CASES)
async def test_frames(safe_app: Application, name: str) -> None:
    case = CASES[name]
    with trio.fail_after(10):
        async with running(safe_app) as server, await server.connect() as client:
            reader = await upgrade(client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send, client, case.sent if case.code else case.sent + STOP, case.chop)
                for expected in case.echoed:
                    assert await reader.frame() == expected
                assert await reader.close_code() == (case.code or 4095)
                assert await reader.rest() == b""

    assert not server.statistics.connection_errors


async def _send(client: trio.SocketStream, data: bytes, chop: int) -> None:
    for start in range(0, len(data), chop):
        await client.send_all(data[start : start + chop])
