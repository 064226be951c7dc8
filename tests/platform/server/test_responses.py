"""Which responses are written without h11, what they look like, and that nobody's header can end one."""

import h11
import pytest

from service.platform.server.responses import encode_head

TYPE = (b"content-type", b"text/plain")
# No token (RFC 9110, 5.1): a client refuses the answer, or reads another field than it was told.
NO_NAMES = (b"", b"x a", b"x-a:", b"set-cookie: a=b; x", b":status", b"x\xc3\xa9", b"x\t", b"x,y")


@pytest.mark.parametrize("status", [200, 201, 404, 418, 503, 599])
def test_a_plain_response_is_what_h11_reads(status: int) -> None:
    encoded = encode_head(status, [TYPE, (b"content-length", b"5")], b"hello")
    assert encoded is not None

    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(encoded + b"hello")
    response, data = client.next_event(), client.next_event()

    assert isinstance(response, h11.Response)
    assert response.status_code == status
    assert list(response.headers) == [TYPE, (b"content-length", b"5")]
    assert isinstance(data, h11.Data)
    assert data.data == b"hello"
    assert isinstance(client.next_event(), h11.EndOfMessage)


@pytest.mark.parametrize("name", [b"x-a", b"x_a", b"!#$%&'*+-.^_`|~09az"])
def test_a_name_may_have_what_a_token_may(name: bytes) -> None:
    assert encode_head(200, [(name, b"b"), (b"content-length", b"0")], b"") is not None


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (101, [(b"content-length", b"0")], b""),
        (204, [(b"content-length", b"0")], b""),
        (304, [(b"content-length", b"0")], b""),
        (200, [], b""),
        (200, [(b"content-length", b"4")], b"hello"),
        (200, [(b"content-length", b"5"), (b"content-length", b"5")], b"hello"),
        (200, [(b"transfer-encoding", b"chunked"), (b"content-length", b"5")], b"hello"),
        (200, [(b"date", b"b"), (b"content-length", b"5"), (b"date", b"b")], b"hello"),
        (200, [(b"connection", b"close"), (b"content-length", b"5")], b"hello"),
        (200, [(b"Content-Length", b"5")], b"hello"),
        (200, [(b"X-A", b"b"), (b"content-length", b"5")], b"hello"),
        (200, [(b"x-a", b"b\r\nx-c: d"), (b"content-length", b"5")], b"hello"),
        (200, [(b"x-a", b"b\nx-c: d"), (b"content-length", b"5")], b"hello"),
        (200, [(b"x-a", b"b\rx"), (b"content-length", b"5")], b"hello"),
        (200, [(b"x-a", b"b\0"), (b"content-length", b"5")], b"hello"),
        (200, [(b"x-a\r\nx-c", b"b"), (b"content-length", b"5")], b"hello"),
        *((200, [(name, b"b"), (b"content-length", b"5")], b"hello") for name in NO_NAMES),
    ],
)
def test_in_doubt_it_is_left_to_h11(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    assert encode_head(status, headers, body) is None
