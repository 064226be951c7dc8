"""One GET over a connection that is kept: as much of an HTTP client as a load generator needs."""

import h11
import trio

PATIENCE = 20.0  # seconds for an answer


async def get(stream: trio.abc.Stream, connection: h11.Connection, *, host: str, path: str) -> int:
    """Return the status once the whole body has come. Raises OSError, trio.TooSlowError and h11.RemoteProtocolError.

    Afterwards `connection.our_state` is IDLE when another request may follow.
    """
    request = h11.Request(method="GET", target=path, headers=[("Host", host)])
    status = 0
    with trio.fail_after(PATIENCE):
        await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        while type(event := connection.next_event()) is not h11.EndOfMessage:
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Response):
                status = event.status_code
    if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
        connection.start_next_cycle()
    return status
