"""Traces by OpenTelemetry: a span for each request, each websocket message and each unit of work inside them.

Its packages are an extra and are imported only where its own variable asks for traces; its SDK reads the other `OTEL_*`
variables by itself. Spans carry a route's pattern and what happened, and never a query string, a body or a text.
"""

import sys
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars

from service.platform.errors import MAX_INSTANCE, cut
from service.platform.name import NAME, version
from service.platform.settings import TRACES, SettingsError
from service.platform.telemetry.exported import Counts, counted, hide_headers

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

LAST_EXPORT = 0.8  # seconds that the end of the process waits for what was not exported yet


@contextmanager
def open_tracing(*, wanted: bool) -> Iterator["Tracing | None"]:
    """Yield what traces, or None when nobody wants it.

    Raises SettingsError when the packages are not there, or do not take what OpenTelemetry's variables say. Its end
    blocks for LAST_EXPORT seconds at most, collector or not.
    """
    if not wanted:
        yield None
        return
    counts = Counts()
    try:
        provider = _make_provider(counts)
        tracing = Tracing(provider, counts)  # imports what reads one more of the variables
    except ImportError as error:
        install = "install the extra otel (`make install EXTRAS=otel`, `EXTRAS=otel make image`)"
        raise SettingsError([f"{TRACES}: is set, and OpenTelemetry is missing: {install}, or unset it"]) from error
    except (ValueError, RuntimeError) as error:
        raise SettingsError([f"OTEL_*: OpenTelemetry does not take what its variables say: {error}"]) from error
    try:
        yield tracing
    finally:
        # On a thread that ends with the process, as a collector that does not answer holds it for many seconds.
        ending = threading.Thread(target=provider.shutdown, name="last export", daemon=True)
        ending.start()
        ending.join(LAST_EXPORT)


def _make_provider(counts: Counts) -> "TracerProvider":
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider

    hide_headers()
    # Not at exit: that would wait for the collector as long as it likes.
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(counted(OTLPSpanExporter(), counts))
    trace.set_tracer_provider(provider)
    return provider


def current_traceparent() -> str | None:
    """Return the traceparent of the span that this is done in, or None when nobody traces."""
    propagate = sys.modules.get("opentelemetry.propagate")  # imported by whoever traces, and by nobody else
    if propagate is None:
        return None
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


class Tracing:
    """Makes the spans. Called by the task that does the work: what it starts, threads included, is inside its span."""

    def __init__(self, provider: "TracerProvider", counts: Counts) -> None:
        from opentelemetry import context, propagate, trace

        self.counts = counts
        self.attach = context.attach
        self.no_context = context.Context()
        self._extract = propagate.extract
        self._trace = trace
        self._tracer = provider.get_tracer("service")

    def begin(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], *, client: str) -> "Traced":
        """Begin the span of a request or an upgrade, inside the caller's trace if it names one."""
        carrier = {name.decode("latin1"): value.decode("latin1") for name, value in headers.items()}
        around = self._extract(carrier, self.no_context)
        attributes = {
            "url.scheme": scope["scheme"],
            "url.path": cut(scope["path"], MAX_INSTANCE),
            "client.address": client,
            "network.protocol.version": scope["http_version"],
        }
        span = self._tracer.start_span("request", around, kind=self._trace.SpanKind.SERVER, attributes=attributes)
        self.attach(self._trace.set_span_in_context(span, around))
        return Traced(self, span)

    def begin_message(self, route: str, upgrade: "Span") -> "Span":
        """Begin the span of one message: a trace of its own, linked to the upgrade's, as a websocket may live long."""
        span = self._tracer.start_span(
            f"message {route}",
            self.no_context,
            kind=self._trace.SpanKind.SERVER,
            attributes={"http.route": route, "network.protocol.name": "websocket"},
            links=[self._trace.Link(upgrade.get_span_context())],
        )
        self.attach(self._trace.set_span_in_context(span, self.no_context))
        return span

    def begin_job(self, kind: str, enqueued_in: str | None) -> "Span":
        """Begin the span of one attempt: a trace of its own, linked to the one in which the job was enqueued.

        The lines that the task logs from now on name it.
        """
        links = []
        if enqueued_in is not None:
            around = self._extract({"traceparent": enqueued_in}, self.no_context)
            links = [self._trace.Link(self._trace.get_current_span(around).get_span_context())]
        span = self._tracer.start_span(f"job {kind}", self.no_context, kind=self._trace.SpanKind.CONSUMER, links=links)
        self.attach(self._trace.set_span_in_context(span, self.no_context))
        bind_contextvars(trace_id=_hex(span))
        return span

    def end_job(self, span: "Span", outcome: str) -> None:
        span.set_attribute("service.outcome", outcome)
        if outcome in {"failed", "dead", "lost", "crashed"}:
            self.fail(span, outcome)
        span.end()

    def unit(self, name: str, outcome: str, seconds: float) -> None:
        """Tell of a unit that has ended, as a child of what the task does; what nobody waits for is not traced."""
        if not self._trace.get_current_span().is_recording():
            return
        now = time.time_ns()
        attributes = {"db.system.name": "postgresql", "code.function.name": name, "service.outcome": outcome}
        kind = self._trace.SpanKind.CLIENT
        span = self._tracer.start_span(name, kind=kind, attributes=attributes, start_time=now - int(seconds * 1e9))
        if outcome in {"failed", "unknown", "busy"}:
            self.fail(span, outcome)
        span.end(now)

    def fail(self, span: "Span", kind: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.StatusCode.ERROR)


class Traced:
    """The span of one request; of a websocket the upgrade's, and then those of its messages, one after the other."""

    def __init__(self, tracing: Tracing, span: "Span") -> None:
        self._tracing = tracing
        self._span = span
        self._message: Span | None = None
        self.trace_id = _hex(span)

    def end(self, method: str, route: str, status: int | str) -> None:
        """End the request or the upgrade. A route is "" where none matched; a status that is no number, no answer."""
        span = self._span
        if span.is_recording():
            span.update_name(f"{method} {route}".rstrip())
            span.set_attribute("http.request.method", method)
            if route:
                span.set_attribute("http.route", route)
            if isinstance(status, int):
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    self._tracing.fail(span, str(status))
            else:
                span.set_attribute("error.type", status)
        span.end()
        self._tracing.attach(self._tracing.no_context)

    def next_message(self, route: str) -> None:
        """Begin the span of a message that the handler is about to get."""
        self._message = self._tracing.begin_message(route, self._span)

    def end_message(self) -> None:
        """The handler has done with the last message, if there was one, and asks for another."""
        if self._message is not None:
            self._message.end()
            self._message = None
            self._tracing.attach(self._tracing.no_context)


def _resource() -> Any:
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

    given = Resource.create()  # from OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    ours = Resource({SERVICE_NAME: NAME, SERVICE_VERSION: version()})
    named = not str(given.attributes[SERVICE_NAME]).startswith("unknown_service")
    return ours.merge(given) if named else given.merge(ours)


def _hex(span: "Span") -> str:
    """Return the id of a span's trace as W3C writes it."""
    return f"{span.get_span_context().trace_id:032x}"
