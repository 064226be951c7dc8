"""What becomes of spans on their way to the collector: counted, those that the SDK drops included.

OpenTelemetry is imported where traces are asked for, and not with this module.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
_HEADERS_LOGGER = "opentelemetry.util.re"  # which shows those that it cannot read: a token, mostly

log = structlog.get_logger(__name__)


class Counts:
    """What became of spans. They end on any thread; all else is the exporter's thread's alone."""

    def __init__(self) -> None:
        self.exported = 0
        self._refused = 0
        self._dropped = 0
        self._missing = 0
        self._failing = False
        self._ended: deque[int] = deque()  # when those did that were not handed on, in nanoseconds

    @property
    def failed(self) -> int:
        """Those that the collector did not take, and those that found no room while it was slow."""
        return self._refused + self._dropped

    def end(self, span: "ReadableSpan") -> None:
        self._ended.append(span.end_time or 0)

    def take(self, spans: "Sequence[ReadableSpan]") -> None:
        """Spans are handed on. The SDK drops the oldest in silence: those that ended sooner and are not among them."""
        last = max(span.end_time or 0 for span in spans)
        self._missing -= len(spans)
        while self._ended and self._ended[0] <= last:
            self._ended.popleft()
            self._missing += 1
        self._dropped = max(self._dropped, self._missing)  # threads may change places: one is missing for a moment

    def count(self, spans: int, *, exported: bool) -> None:
        self.exported += spans * exported
        self._refused += spans * (not exported)
        if self._failing is exported:
            self._failing = not exported
            log.warning("traces exported again" if exported else "traces not exported", spans=spans)


def hide_headers() -> None:
    """Let a header that cannot be read, mostly a token, be told without what is in it."""
    logging.getLogger(_HEADERS_LOGGER).addFilter(_tell_headers)


def _tell_headers(_: logging.LogRecord) -> bool:
    """Say in place of the SDK's line, which shows a header that is none, what it must be."""
    must_be = "name=value, separated by commas; one of them is not, and is left out"
    log.warning("header of traces not read", variable=HEADERS, must_be=must_be)
    return False


def counted(exporter: "SpanExporter", counts: Counts) -> "SpanProcessor":
    """Return what gives spans to the exporter in batches, counting; it exports on the SDK's own thread."""
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class CountedExporter(SpanExporter):
        def export(self, spans: "Sequence[ReadableSpan]") -> SpanExportResult:
            counts.take(spans)
            result = exporter.export(spans)
            counts.count(len(spans), exported=result is SpanExportResult.SUCCESS)
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    class CountedProcessor(BatchSpanProcessor):
        def on_end(self, span: "ReadableSpan") -> None:
            if span.context is not None and span.context.trace_flags.sampled:
                counts.end(span)
            super().on_end(span)

    return CountedProcessor(CountedExporter())
