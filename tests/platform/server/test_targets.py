"""What a request line may be: a rule by path or method in a proxy sees the same path and method as our routes."""

import pytest
import trio
import trio.testing
from quart import Blueprint

from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.server import Application
from service.platform.server.routing import _encode_host
from service.platform.server.targets import origin_form
from tests.platform.server.child import make_settings
from tests.platform.server.conftest import running
from tests.platform.server.wire import Reader, get

SECRET = b"let in"


@pytest.fixture
def guarded(app: Application) -> Application:
    routes = Blueprint("guarded", __name__)

    @routes.route("/api/hello", methods=["GET", "POST"])
    @anyone
    @unlimited("a test's")
    async def hello() -> str:
        return "let in"

    @routes.get("/files/<path:name>")
    @anyone
    @unlimited("a test's")
    async def files(name: str) -> str:
        return name

    app.register_blueprint(routes)
    return app


async def ask(app: Application, line: bytes, headers: bytes = b"Host: x\r\n") -> tuple[int, bytes, bytes]:
    async with running(app) as server, await server.connect() as client:
        await client.send_all(line + b" HTTP/1.1\r\n" + headers + b"Connection: close\r\n\r\n")
        answer = await Reader(client).rest()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /api/hello", 200),
        (b"GET /api/hello?x=//y", 200),
        (b"GET /%61pi/hello", 200),  # RFC 3986, 2.3: an unreserved character is the same encoded
        (b"GET http://x/api/hello", 200),  # RFC 9112, 3.2.2: a server must accept it
        (b"GET HTTP://x/api/hello?y", 200),
        (b"GET api/hello", 400),
        (b"GET ?api/hello", 400),
        (b"GET x:80", 400),
        (b"GET ftp://x/api/hello", 400),
        (b"GET http:///api/hello", 400),
        (b"GET *", 400),
        (b"GET \\api\\hello", 400),
        (b"GET //api/hello", 404),
        (b"GET ///api/hello", 404),
        (b"GET http://x//api/hello", 404),
        (b"GET /api//hello", 404),
        (b"GET /api%2Fhello", 404),
        (b"GET /api%2fhello", 404),
        (b"GET /x/../api/hello", 404),
        (b"GET /./api/hello", 404),
        (b"GET /x/%2e%2e/api/hello", 404),
        (b"GET /api/hello/", 404),
        (b"GET /api\\hello", 404),
        (b"GET /api/hello%00", 404),
        (b"GET /files/a%2Fb", 404),
        (b"GET /files/a/b", 200),
        (b"GET /files/../api/hello", 404),  # RFC 3986, 5.2.4: /api/hello to a proxy, and to every browser
        (b"GET /files/a/../../api/hello", 404),
        (b"GET /files/%2e%2E/api/hello", 404),
        (b"GET /files/.%2e", 404),
        (b"GET /files/./a", 404),
        (b"GET /files/a/.?b", 404),
        (b"GET /files/.a/..b/c./...", 200),
        (b"GET /files/a?../b", 200),
        (b"GET /api/hello#", 400),  # RFC 9112, 3.2: no fragment; some readers leave it out
        (b"GET /files/a#/b", 400),
        (b"GET /files/a?b#c", 400),
        (b"GET http://x/files/a#b", 400),
        (b"GET /files/a%23b", 200),
        (b"get /api/hello", 405),  # RFC 9110, 9.1: methods are case-sensitive
        (b"Get /api/hello", 405),
        (b"poST /api/hello", 405),
        (b"DELETE /api/hello", 405),
    ],
    ids=repr,
)
async def test_a_path_and_a_method_are_what_they_are_written_as(guarded: Application, line: bytes, status: int) -> None:
    got, head, body = await ask(guarded, line)

    assert got == status, head
    assert (body == SECRET) is (status == 200 and b"files" not in line)


async def test_options_of_no_path_are_the_server_s(guarded: Application) -> None:
    status, head, body = await ask(guarded, b"OPTIONS *")

    assert (status, body) == (200, b"")
    assert {b"allow: GET, HEAD, OPTIONS, POST", b"content-length: 0"} <= set(head.split(b"\r\n"))


async def test_the_authority_of_an_absolute_target_is_the_host(app: Application) -> None:
    @app.get("/host")
    @anyone
    @unlimited("a test's")
    async def host() -> str:
        from quart import request

        return request.headers["Host"]

    _, _, body = await ask(app, b"GET http://right.example:81/host", b"Host: wrong.example\r\n")

    assert body == b"right.example:81"


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize("host", ["Example.ORG", "[::1]", "192.0.2.1"])
@pytest.mark.parametrize("port", ["", ":80", ":443", ":8000"])
def test_the_port_that_a_scheme_has_anyway_is_left_out_of_the_host(scheme: str, host: str, port: str) -> None:
    usual = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443"}[scheme]

    assert _encode_host(scheme, host + port) == host.lower() + ("" if port == usual else port)


@pytest.mark.parametrize("target", [b"http://user@x/", b"http://x:y/", b"//x/", b"http://", b"https:/x", b"HTTP:x"])
def test_what_is_no_absolute_target_is_none(target: bytes) -> None:
    assert target == b"//x/" or origin_form(b"GET", target) is None


# RFC 9112, 2.2: at least one empty line ahead of a request line should be ignored; some clients end a body with one.
POST = b"POST /api/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
AHEAD = {
    "first": (b"\r\n" + get("/api/hello"),),
    "after an answer": (get("/api/hello"), b"\r\n" + get("/api/hello")),
    "behind a body": (POST + b"\r\n", get("/api/hello")),
    "behind a body, and the next at once": (POST + b"\r\n" + get("/api/hello"),),
    "between two at once": (get("/api/hello") + b"\r\n" + get("/api/hello"),),
    "in two pieces": (b"\r", b"\n", get("/api/hello")),
    "another upgrade": (b"\r\n" + get("/api/hello", headers=["Connection: upgrade", "Upgrade: other"]),),
}


@pytest.mark.parametrize("name", AHEAD)
async def test_an_empty_line_ahead_of_a_request_is_ignored(guarded: Application, name: str) -> None:
    sent = AHEAD[name]
    async with running(guarded) as server, await server.connect() as client:
        reader = Reader(client)
        for piece in sent:
            await client.send_all(piece)
            for _ in range(piece.count(b"HTTP/1.1")):
                assert (await reader.response())[::2] == (200, SECRET)
            await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize("ahead", [b"\r\n" * 2, b"\r\n\r", b"\r\r\n", b" \r\n", b"\n"])
async def test_more_than_one_is_refused(guarded: Application, ahead: bytes) -> None:
    async with running(guarded) as server, await server.connect() as client:
        await client.send_all(ahead + get("/api/hello"))
        assert int((await Reader(client).rest()).split()[1]) == 400


async def test_an_empty_line_keeps_no_connection(guarded: Application, mock_clock: trio.testing.MockClock) -> None:
    """It is no beginning of a request, and does not put off the end of an idle connection."""
    mock_clock.rate = 1
    async with (
        running(guarded, make_settings(keep_alive_timeout=20)) as server,
        await server.connect() as client,
    ):
        await client.send_all(get("/api/hello"))
        await Reader(client).response()
        mock_clock.jump(15)
        await client.send_all(b"\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(5)
        with trio.fail_after(10):
            assert await Reader(client).rest() == b""
