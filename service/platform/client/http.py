"""Requests over one connection, one after the other: h11 over a Trio stream, and as much of HTTP as the verbs need.

No redirects, proxies, cookies or pool. Deadlines are the caller's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import h11
import trio

# How a request may fail: no connection, one that ends, no answer in time, an answer that is no HTTP.
FAILURES = (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and the whole body."""

    status: int
    body: bytes


class HttpClient:
    """One connection, for one task. Whoever opened the stream closes it."""

    def __init__(self, stream: trio.abc.Stream, host: str) -> None:
        self._stream = stream
        self._host = host
        self._connection = h11.Connection(h11.CLIENT)

    @property
    def usable(self) -> bool:
        """Whether another request may follow."""
        return self._connection.our_state is h11.IDLE

    async def ask(
        self, target: str, *, method: str = "GET", headers: Mapping[str, str] = {}, body: bytes = b""
    ) -> Answer:
        """Return the answer once all of it has come. Raises one of FAILURES."""
        length = {"Content-Length": str(len(body))} if body else {}
        fields = list({"Host": self._host, **headers, **length}.items())
        events = [h11.Request(method=method, target=target, headers=fields), h11.Data(data=body), h11.EndOfMessage()]
        await self._stream.send_all(b"".join([self._connection.send(event) or b"" for event in events]))
        answer = await self._read_answer()
        if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE:
            self._connection.start_next_cycle()
        return answer

    async def _read_answer(self) -> Answer:
        status, body = 0, bytearray()
        while type(event := self._connection.next_event()) is not h11.EndOfMessage:
            if event is h11.NEED_DATA:
                self._connection.receive_data(bytes(await self._stream.receive_some()))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
        return Answer(status, bytes(body))
