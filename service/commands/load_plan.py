"""What a load run is to do, and what came of it; no sockets and no clock."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; rates are of all together, per second."""

    url: str
    members: int
    writers: int
    rooms: int
    rate: float
    http: float
    path: str
    duration: float
    host: str = ""


@dataclass(slots=True)
class Report:
    """What came of it. Times are seconds."""

    plan: Plan
    joined: int = 0  # members who are there now
    sent: int = 0
    acked: int = 0
    received: int = 0
    reconnects: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # sends answered with an error, by its code
    statuses: Counter[str] = field(default_factory=Counter)  # of HTTP; "broken" is no answer
    ack_times: list[float] = field(default_factory=list)
    delivery_times: list[float] = field(default_factory=list)
    http_times: list[float] = field(default_factory=list)
    violations: dict[str, int] = field(default_factory=dict)
    told_gaps: int = 0
    repeats: int = 0

    @property
    def kept(self) -> bool:
        """True when no guarantee was violated, and anything worked at all."""
        silent = (self.plan.writers and not self.acked) or (self.plan.http and not self.http_times)
        return not silent and not any(self.violations.values())

    def json(self) -> str:
        times = {"ack": self.ack_times, "delivery": self.delivery_times, "http": self.http_times}
        counts = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name != "plan" and not f.name.endswith("_times")
        }
        seconds = {name: percentiles(values) for name, values in times.items()}
        return json.dumps({"plan": asdict(self.plan), **counts, "seconds": seconds, "kept": self.kept})


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p90, p99 and the greatest; nothing for no values."""
    ordered = sorted(values)
    wanted = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in wanted.items() if ordered
    }
