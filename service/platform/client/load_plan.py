"""What a load run is to do and what came of it, part by part; no sockets and no clock.

`service load` runs parts side by side: GETs (load_http.py), and what each feature brings. A feature's load module has,
from `service.platform.client`,

    @dataclass(frozen=True, kw_only=True)
    class Options:            # become options of the verb; their names must be the feature's alone
        members: Annotated[int, typer.Option(min=0, help="Websockets to open.")] = 50

    class Load(Part):         # made once a run
        def __init__(self, plan: Plan, options: Options) -> None: ...
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from service.platform.client.token import read_token


@dataclass(frozen=True)
class Plan:
    """What holds for all parts: where the service is, and for how many seconds it is loaded."""

    url: str
    duration: float
    host: str = ""
    token_file: Path | None = None  # an access token; whoever renews it writes it there

    @property
    def token(self) -> str:
        """What is sent as an access token now; nothing without a file. Raises OSError."""
        return read_token(self.token_file)

    @property
    def sent_host(self) -> str:
        """What is sent as Host."""
        return self.host or urlsplit(self.url).netloc


class NothingThere(Exception):
    """There is none of what a part loads where the service is said to be: why, for the person at the terminal."""


@dataclass(frozen=True)
class Bar:
    """How far a part of the run is."""

    name: str
    total: float
    done: float
    words: str


class Part:
    """One part of a run. It does nothing and is content; a part overrides what it needs."""

    async def prepare(self, nursery: trio.Nursery) -> None:
        """Begin what lasts until all is settled; return when the load may start. May raise NothingThere."""

    def start(self, nursery: trio.Nursery, started: float) -> None:
        """Begin what lasts for the plan's duration, which starts at the time `started` of Trio's clock."""

    async def settle(self) -> None:
        """Wait for what is on its way when the time is over."""

    @property
    def kept(self) -> bool:
        """Return whether what the service promises was kept."""
        return True

    def asked(self) -> dict[str, Any]:
        """Return what this part was to do, for programs."""
        return {}

    def times(self) -> dict[str, Sequence[float]]:
        """Return the seconds that something took, by its name."""
        return {}

    def figures(self) -> dict[str, Any]:
        """Return what is to be told beside the times, for programs."""
        return {}

    def lines(self) -> list[str]:
        """Return what is to be told beside the times, for people."""
        return []

    def bars(self) -> list[Bar]:
        """Return how far this part is."""
        return []


class Report:
    """What came of a run."""

    def __init__(self, plan: Plan, parts: Sequence[Part]) -> None:
        self.plan = plan
        self.parts = parts

    @property
    def kept(self) -> bool:
        return all(part.kept for part in self.parts)

    def times(self) -> dict[str, Sequence[float]]:
        return {name: times for part in self.parts for name, times in part.times().items()}

    def lines(self) -> list[str]:
        return [line for part in self.parts for line in part.lines()]

    def bars(self, seconds: float) -> list[Bar]:
        """Return how far everything is after so many seconds."""
        total = self.plan.duration
        time = Bar("time", total, seconds, f"{min(seconds, total):.0f} of {total:g} s")
        return [time, *(bar for part in self.parts for bar in part.bars())]

    def json(self) -> str:
        plan, figures = asdict(self.plan), dict[str, Any]()
        for part in self.parts:
            plan |= part.asked()
            figures |= part.figures()
        seconds = {name: percentiles(values) for name, values in self.times().items()}
        return json.dumps({"plan": plan, **figures, "seconds": seconds, "kept": self.kept}, default=str)


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
