"""GETs at a given pace, over as many connections as that takes: as much of an HTTP client as a load generator needs."""

import math

import h11
import trio

from service.commands.load_plan import Plan, Report
from service.commands.websocket_client import open_stream

PATIENCE = 20.0  # seconds for an answer
MOST_CONNECTIONS = 200
FAILURES = (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError)

type Dues = trio.MemoryReceiveChannel[float]


class Asking:
    """One run's GETs. A slow answer holds up no other: times count from when a request was due."""

    def __init__(self, plan: Plan, report: Report, host: str) -> None:
        self._plan = plan
        self._report = report
        self._host = host
        self._connections = 0

    async def run(self, started: float) -> None:
        """Ask until the plan's duration is over, and return with the last answer."""
        give, dues = trio.open_memory_channel[float](math.inf)
        async with trio.open_nursery() as nursery, give:
            for turn in range(round(self._plan.http * self._plan.duration)):
                due = started + turn / self._plan.http
                await trio.sleep_until(due)
                if not give.statistics().tasks_waiting_receive and self._connections < MOST_CONNECTIONS:
                    self._connections += 1
                    nursery.start_soon(self._ask, dues)
                give.send_nowait(due)

    async def _ask(self, dues: Dues) -> None:
        """Ask whatever is due over one connection, and over a new one when that has ended."""
        due = await _next(dues)
        while due is not None:
            answers = 0
            try:
                async with open_stream(self._plan.url) as stream:
                    connection = h11.Connection(h11.CLIENT)
                    while due is not None and connection.our_state is h11.IDLE:
                        status = await get(stream, connection, host=self._host, path=self._plan.path)
                        self._report.statuses[str(status)] += 1
                        self._report.http_times.append(trio.current_time() - due)
                        answers += 1
                        due = await _next(dues)
            except FAILURES:
                # A server may end a connection that is kept, and then a client asks again; a new one is another thing.
                self._report.statuses["asked again" if answers else "broken"] += 1
                due = due if answers else await _next(dues)


async def get(stream: trio.abc.Stream, connection: h11.Connection, *, host: str, path: str) -> int:
    """Return the status once the whole body has come. Raises one of FAILURES.

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


async def _next(dues: Dues) -> float | None:
    try:
        return await dues.receive()
    except trio.EndOfChannel:
        return None
