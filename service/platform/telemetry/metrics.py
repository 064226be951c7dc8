"""Metrics of one process, in a registry of its own: what is observed as it happens, and what is read when asked.

Whoever counts anyway goes on counting plain numbers; `gauge` and `counter` only say where to read them, at the moment
in which somebody scrapes. Names and labels come from code alone, never from clients: the number of series is bounded.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds. From what a memory answer takes to the request deadline's default.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

log = structlog.get_logger(__name__)

# A plain number, or one for each value of the one label.
type Reading = Callable[[], float | Mapping[Any, float]]


class Metrics:
    """One per process, opened by main; features get it in their Resources and add their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._readings = _Readings()
        self._registry.register(self._readings)
        ProcessCollector(registry=self._registry)

    def gauge(self, name: str, help: str, read: Reading, *, label: str = "") -> None:  # noqa: A002  Prometheus's word
        """Show what `read` returns at each scrape; a mapping's keys are the values of `label`."""
        self._readings.add(name, lambda: GaugeMetricFamily(name, help, labels=_labels(label)), read)

    def counter(self, name: str, help: str, read: Reading, *, label: str = "") -> None:  # noqa: A002  Prometheus's word
        """The same for what only rises; the name ends in `_total`."""
        if not name.endswith("_total"):
            raise ValueError(f"{name}: the name of a counter ends in _total")
        self._readings.add(name, lambda: CounterMetricFamily(name, help, labels=_labels(label)), read)

    def info(self, name: str, help: str, values: Mapping[str, str]) -> None:  # noqa: A002  Prometheus's word
        """Show facts that do not change, as the labels of a 1."""

        def family() -> Metric:
            shown = GaugeMetricFamily(name, help, labels=list(values))
            shown.add_metric(list(values.values()), 1)
            return shown

        self._readings.add(name, family, dict)

    def histogram(
        self,
        name: str,
        help: str,  # noqa: A002  Prometheus's word
        *labels: str,
        buckets: tuple[float, ...] = BUCKETS,
    ) -> "Observer":
        """Return what observes seconds; the values of the labels must come from code."""
        observer = Observer(lambda: HistogramMetricFamily(name, help, labels=labels), buckets, labelled=bool(labels))
        self._readings.add(name, observer.family, dict)
        return observer

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._registry)


class Observer:
    """A histogram that only counts; what the library wants to know is made when somebody scrapes."""

    def __init__(
        self, family: Callable[[], HistogramMetricFamily], buckets: tuple[float, ...], *, labelled: bool
    ) -> None:
        self._family = family
        self._bounds = buckets
        self._series: dict[tuple[str, ...], _Counts] = {} if labelled else {(): self._new()}

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one; for the event loop alone, so without a lock."""
        counts = self._series.get(labels)
        if counts is None:
            counts = self._series[labels] = self._new()
        counts.buckets[bisect_left(self._bounds, seconds)] += 1
        counts.sum += seconds

    def family(self) -> Metric:
        shown = self._family()
        bounds = [*map(str, self._bounds), "+Inf"]
        for labels, counts in self._series.items():
            shown.add_metric(labels, list(zip(bounds, accumulate(counts.buckets), strict=True)), counts.sum)
        return shown

    def _new(self) -> "_Counts":
        return _Counts([0] * (len(self._bounds) + 1))


@dataclass(slots=True)
class _Counts:
    """One series: how many fell into each bucket, the last without a bound, and their sum."""

    buckets: list[int]
    sum: float = 0.0


class _Readings(Collector):
    """Reads the plain numbers. What cannot be read is an error, told once, and no reason to show nothing else."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Callable[[], Metric], Reading]] = {}
        self._unread: set[str] = set()

    def add(self, name: str, family: Callable[[], Metric], read: Reading) -> None:
        if name in self._sources:
            raise ValueError(f"{name}: there is such a metric already")
        self._sources[name] = family, read

    def describe(self) -> Iterator[Metric]:
        """Say nothing: the registry would otherwise read everything once, before there is anything to read."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        for name, (family, read) in self._sources.items():
            try:
                shown = _read(family, read)
            except Exception:  # a feature's, mostly
                if name not in self._unread:
                    log.exception("metric not read", metric=name)
                self._unread.add(name)
            else:
                self._unread.discard(name)
                yield shown


def _read(family: Callable[[], Metric], read: Reading) -> Metric:
    shown = family()
    value = read()
    labelled = [([str(label)], one) for label, one in value.items()] if isinstance(value, Mapping) else [([], value)]
    for labels, number in labelled:
        shown.add_metric(labels, float(number))  # type: ignore[attr-defined]  # both kinds have it
    return shown


def _labels(label: str) -> list[str]:
    return [label] if label else []
