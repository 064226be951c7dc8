"""An OpenTelemetry collector of a test's own: takes spans over HTTP on loopback, or does not answer at all."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Span:
    """One that came in; ids as hexadecimal digits."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    seconds: float
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: list[str]


@dataclass
class Collector:
    """What came in; while `silent`, requests are taken and never answered."""

    url: str = ""
    silent: bool = False
    spans: list[Span] = field(default_factory=list)
    requests: int = 0

    async def wait_for(self, name: str, number: int = 1, seconds: float = 60) -> list[Span]:
        """Return the spans of a name once there are so many."""
        with trio.fail_after(seconds):
            while len(found := [span for span in self.spans if span.name == name]) < number:
                await trio.sleep(0.02)
        return found


@asynccontextmanager
async def collecting(*, silent: bool = False) -> AsyncIterator[Collector]:
    """Collect for the length of the block."""
    collector = Collector(silent=silent)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(_converse, collector), 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        collector.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield collector
        nursery.cancel_scope.cancel()


async def _converse(collector: Collector, stream: trio.SocketStream) -> None:
    connection, body = h11.Connection(h11.SERVER), b""
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            case h11.Request():
                collector.requests += 1
            case h11.Data() as data:
                body += data.data
            case h11.EndOfMessage():
                if collector.silent:
                    await trio.sleep_forever()
                collector.spans += _parse(body)
                body = b""
                answer = h11.Response(status_code=200, headers=[("Content-Length", "0")])
                await stream.send_all((connection.send(answer) or b"") + (connection.send(h11.EndOfMessage()) or b""))
                connection.start_next_cycle()
            case _:
                return


def _parse(body: bytes) -> Iterator[Span]:
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in of_resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    attributes=_values(span.attributes),
                    resource=_values(of_resource.resource.attributes),
                    links=[link.span_id.hex() for link in span.links],
                )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
