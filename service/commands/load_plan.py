"""What a load run is to do, and what came of it; no sockets and no clock."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Plan:
    """What to do; rates are of all together, per second."""

    url: str
    http: float
    path: str
    duration: float
    host: str = ""


@dataclass(frozen=True)
class Bar:
    """How far a part of the run is."""

    name: str
    total: float
    done: float
    words: str


@dataclass
class Report:
    """What came of it. Times are seconds."""

    plan: Plan
    statuses: Counter[str] = field(default_factory=Counter)  # of HTTP; "broken" is no answer
    http_times: list[float] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """True when anything worked at all."""
        return bool(self.http_times) or not self.plan.http

    def times(self) -> dict[str, list[float]]:
        return {"http": self.http_times}

    def figures(self) -> dict[str, Any]:
        """Return what is to be told beside the times, for programs."""
        return {"statuses": self.statuses}

    def lines(self) -> list[str]:
        """Return what is to be told beside the times, for people."""
        counted = ", ".join(f"{count:,} × {status}" for status, count in self.statuses.items())
        return [f"statuses          {counted}"] if counted else []

    def bars(self, seconds: float) -> list[Bar]:
        """Return how far everything is after so many seconds."""
        plan, answered = self.plan, sum(self.statuses.values())
        return [
            Bar("time", plan.duration, seconds, f"{min(seconds, plan.duration):.0f} of {plan.duration:g} s"),
            Bar("http", plan.http * plan.duration, answered, f"{answered:,} answers{typical(self.http_times)}"),
        ]

    def json(self) -> str:
        seconds = {name: percentiles(values) for name, values in self.times().items()}
        return json.dumps({"plan": asdict(self.plan), **self.figures(), "seconds": seconds, "kept": self.kept})


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99 and the greatest; nothing for no values."""
    ordered = sorted(values)
    wanted = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in wanted.items() if ordered
    }


def typical(values: Sequence[float]) -> str:
    """Return how long it took lately, for the end of a line."""
    recent = percentiles(values[-500:])
    return f", p50 {recent['p50'] * 1000:.1f} ms, p99 {recent['p99'] * 1000:.1f} ms" if recent else ""


def counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counted.items()) or "none"
