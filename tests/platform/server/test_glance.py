"""What is read at a glance is what h11 reads, and where the two could differ nothing is read."""

import h11
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.platform.server import Application
from service.platform.server.glance import MOST_BYTES, read_at_a_glance
from tests.platform.server.conftest import running
from tests.platform.server.wire import Reader, get

PLAIN = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nUser-Agent: a  b (c; d)\r\n\r\n"

# Each is one step away from a plain request, in a place where readers have differed from each other.
HOSTILE = [
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nTRANSFER-ENCODING: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\tchunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rContent-Length: 5\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x0bb\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: \x85\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX:a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x \r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\n",
    b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nHOST: x\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    b"GET / HTTP/11\r\nHost: x\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    b"DELETE / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"DELETES / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Host\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nTrailer: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * MOST_BYTES + b"\r\n\r\n",
    PLAIN[:-1],
    PLAIN[:-2],
    PLAIN[1:],
    b"",
]

NAMES = st.sampled_from(
    [b"Host", b"host", b"Accept", b"X-A", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Cookie"]
)
VALUES = st.sampled_from([b"x", b"keep-alive", b"close", b"chunked", b"0", b"5", b"a, b", b"a  b"]) | st.binary(
    max_size=6
)
COLONS = st.sampled_from([b": ", b": ", b": ", b":", b" : ", b":\t", b":  "])
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b" \r\n", b"\r\n "])
LINES = st.tuples(NAMES, COLONS, VALUES, ENDS).map(b"".join)
FIRST = st.tuples(
    st.sampled_from([b"GET", b"GET", b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST", b"get"]),
    st.sampled_from([b" ", b" ", b"  ", b"\t"]),
    st.sampled_from([b"/", b"/a?b", b"//x", b"/%2f", b"*", b"http://y/", b"/a b", b"/\xc3"]),
    st.sampled_from([b" HTTP/1.1\r\n", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/1.1\n", b"\r\n"]),
).map(b"".join)
REQUESTS = st.tuples(
    FIRST,
    st.lists(LINES, max_size=4).map(b"".join),
    st.sampled_from([b"Host: x\r\n", b"Host: x\r\n", b""]),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\nx", b""]),
).map(b"".join)


def judge(data: bytes) -> h11.Request | None:
    """Return the request that h11 reads, if it is all that there is and the connection is kept after it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request, end = connection.next_event(), connection.next_event()
    except h11.RemoteProtocolError:
        return None
    whole = isinstance(request, h11.Request) and isinstance(end, h11.EndOfMessage)
    if not whole or connection.trailing_data != (b"", False) or connection.their_state is not h11.DONE:
        return None
    assert isinstance(request, h11.Request)
    return request


def agree(data: bytes) -> bool:
    """Return whether it was read at a glance; and then h11 has to agree."""
    seen = read_at_a_glance(data)
    if seen is None:
        return False
    request = judge(data)
    assert request is not None
    assert (request.target, list(request.headers), request.method, request.http_version) == seen
    return True


def test_what_clients_send_is_read_at_a_glance() -> None:
    assert agree(PLAIN)
    assert agree(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
    assert agree(b"DELETE /a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert agree(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert agree(b"OPTIONS /a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert agree(b"GET /api/hello HTTP/1.1\r\nhost: 127.0.0.1:8000\r\ncookie: a=b; c=d\r\nX-Request-Id: 1\r\n\r\n")


@pytest.mark.parametrize("data", HOSTILE)
def test_what_readers_have_differed_over_is_left_to_h11(data: bytes) -> None:
    assert read_at_a_glance(data) is None


@settings(max_examples=2_000, deadline=None)
@given(REQUESTS)
@example(PLAIN)
def test_random_requests_are_what_h11_reads_in_them(data: bytes) -> None:
    agree(data)


@settings(max_examples=2_000, deadline=None)
@given(st.integers(0, len(PLAIN) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_a_plain_request_with_a_change_anywhere_is_what_h11_reads_in_it(where: int, put: bytes, taken: int) -> None:
    agree(PLAIN[:where] + put + PLAIN[where + taken :])


POST = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


async def test_what_comes_behind_a_request_that_was_read_at_a_glance_is_answered_after_it(
    safe_app: Application,
) -> None:
    """A slow one; meanwhile one with a body and a plain one in a single packet; then again a plain one."""
    async with running(safe_app) as server, await server.connect() as client:
        reader = Reader(client)
        await client.send_all(get("/slow/0.2"))
        await trio.sleep(0.1)
        await client.send_all(POST + get("/"))
        answers = [await reader.response() for _ in range(3)]
        await client.send_all(get("/"))
        answers.append(await reader.response())

    assert [(status, body) for status, _, body in answers] == [
        (200, b"done"),
        (200, b"2"),
        (200, b"hello"),
        (200, b"hello"),
    ]


async def test_what_goes_on_with_a_request_is_not_read_as_one_of_its_own(safe_app: Application) -> None:
    """Who can have another's request cut in two, by its length, would otherwise choose what is asked in its place."""
    async with running(safe_app) as server, await server.connect() as client:
        reader = Reader(client)
        await client.send_all(get("/") + b"GET / HTTP/1.1\r\nX-Part: ")
        answers = [await reader.response()]  # the beginning of the next is there as well
        await client.send_all(get("/nowhere"))
        answers.append(await reader.response())
        await client.send_all(get("/"))
        answers.append(await reader.response())

    assert [(status, body) for status, _, body in answers] == [(200, b"hello")] * 3


async def test_an_answer_that_is_not_plain_follows_a_request_that_was_read_at_a_glance(safe_app: Application) -> None:
    async with running(safe_app) as server, await server.connect() as client:
        await client.send_all(get("/stream"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += await client.receive_some(100)

    assert head.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding: chunked" in head.lower()


async def test_a_head_is_answered_without_a_body_and_the_connection_goes_on(safe_app: Application) -> None:
    async with running(safe_app, probes={"/alive": lambda: (200, b"{}")}) as server, await server.connect() as client:
        reader = Reader(client)
        heads = []
        for path in ("/", "/alive", "/nowhere"):
            await client.send_all(get(path).replace(b"GET", b"HEAD"))
            heads.append(await reader.until(b"\r\n\r\n"))
        await client.send_all(get("/alive").replace(b"GET", b"DELETE"))  # no probe asks like that
        deleted = await reader.response()
        await client.send_all(get("/"))
        last = await reader.response()

    assert [head.split()[1] for head in heads] == [b"200", b"200", b"404"]
    assert b"content-length: 5" in heads[0].lower()
    assert b"content-length: 2" in heads[1].lower()
    assert deleted[0] == 404
    assert (last[0], last[2]) == (200, b"hello")
