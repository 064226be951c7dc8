"""The stack's everyday: requests on a kept connection, HTTP/1.0, a websocket that echoes, and a clean stop."""

from quart import request, websocket
from trio_websocket import open_websocket_url

from service.platform.server import Application
from tests.platform.server.conftest import running


async def test_requests_and_a_websocket_are_served_and_the_server_stops(app: Application) -> None:
    @app.post("/echo")
    async def echo() -> bytes:
        return await request.get_data(cache=True, as_text=False, parse_form_data=False)

    @app.websocket("/ws")
    async def echo_messages() -> None:
        while True:
            await websocket.send(await websocket.receive())

    async with running(app) as server:
        async with await server.connect() as client:
            for _ in range(3):
                await client.send_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde")
                answer = await client.receive_some()
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert answer.endswith(b"abcde")

            await client.send_all(b"POST /echo HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
            assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
            assert await client.receive_some() == b""

        async with open_websocket_url(f"ws://127.0.0.1:{server.port}/ws") as member:
            for message in ("hi", b"bytes", b"", ""):
                await member.send_message(message)
                assert await member.get_message() == message

        server.stop.set()
        await server.stopped.wait()

    assert server.statistics.connections_open == server.statistics.websockets_open == 0
    assert not server.statistics.connection_errors
