"""`service load`: clients that ask, over real sockets, at a given pace. It knows the service by its wire alone."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h11
import trio

from service.commands.load_http import get
from service.commands.websocket_client import open_stream

CONNECTIONS = 20  # of HTTP
PAUSE = 0.2  # seconds before a reconnect


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
        return [f"statuses          {counts(self.statuses)}"] if self.statuses else []

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


class Run:
    """One run: `start` begins what lasts for the plan's duration."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.started = 0.0
        self._plan = report.plan
        self._host = report.plan.host or urlsplit(report.plan.url).netloc

    # sample begins
    async def prepare(self, nursery: trio.Nursery) -> None:
        """Begin what lasts until all is settled."""

    async def settle(self) -> None:
        """Wait for what is on its way when the time is over."""

    # sample ends
    def start(self, nursery: trio.Nursery) -> None:
        for number in range(CONNECTIONS if self._plan.http else 0):
            nursery.start_soon(self._ask, number)

    async def _ask(self, number: int) -> None:
        """Ask again and again over one connection, and over a new one when that is gone."""
        pace = CONNECTIONS / self._plan.http
        due = self.started + pace * number / CONNECTIONS
        while due < self.started + self._plan.duration:
            try:
                async with open_stream(self._plan.url) as stream:
                    connection = h11.Connection(h11.CLIENT)
                    while due < self.started + self._plan.duration and connection.our_state is h11.IDLE:
                        await trio.sleep_until(due)
                        due += pace
                        begun = time.perf_counter()
                        status = await get(stream, connection, host=self._host, path=self._plan.path)
                        self.report.statuses[str(status)] += 1
                        self.report.http_times.append(time.perf_counter() - begun)
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError):
                self.report.statuses["broken"] += 1
                await trio.sleep(PAUSE)
                due = max(due, trio.current_time())


async def run_load(run: Run, show: Callable[[Report, float], object]) -> None:
    """Load for the plan's duration; `show` is called a few times a second."""
    async with trio.open_nursery() as nursery:
        await run.prepare(nursery)  # sample
        run.started = trio.current_time()
        nursery.start_soon(_tell, run, show)
        async with trio.open_nursery() as work:
            run.start(work)
        await run.settle()  # sample
        nursery.cancel_scope.cancel()
    show(run.report, run.report.plan.duration)


async def _tell(run: Run, show: Callable[[Report, float], object]) -> None:
    while True:
        show(run.report, trio.current_time() - run.started)
        await trio.sleep(0.2)


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
