"""GETs at a given pace, over as many connections as that takes."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import trio

from service.platform.client.http import FAILURES, HttpClient
from service.platform.client.load_plan import Bar, Part, Plan, typical
from service.platform.client.stream import open_stream

PATIENCE = 20.0  # seconds for an answer
MOST_CONNECTIONS = 200

type Dues = trio.MemoryReceiveChannel[float]


class HttpLoad(Part):
    """`rate` GETs of `path` a second. A slow answer holds up no other: times count from when a request was due."""

    def __init__(self, plan: Plan, *, rate: float, path: str) -> None:
        self._plan = plan
        self._rate = rate
        self._path = path
        self._connections = 0
        self.statuses: Counter[str] = Counter()  # "broken" is no answer
        self.seconds: list[float] = []

    @property
    def kept(self) -> bool:
        """True when anything worked at all, which a refusal, a wrong path or a crash did not."""
        return not self._rate or any(status[0] in "123" for status in self.statuses)

    def asked(self) -> dict[str, Any]:
        return {"http": self._rate, "path": self._path}

    def times(self) -> dict[str, Sequence[float]]:
        return {"http": self.seconds}

    def figures(self) -> dict[str, Any]:
        return {"statuses": self.statuses}

    def lines(self) -> list[str]:
        counted = ", ".join(f"{count:,} × {status}" for status, count in self.statuses.items())
        return [f"statuses          {counted}"] if counted else []

    def bars(self) -> list[Bar]:
        answered = sum(self.statuses.values())
        return [
            Bar("http", self._rate * self._plan.duration, answered, f"{answered:,} answers{typical(self.seconds)}"),
        ]

    def start(self, nursery: trio.Nursery, started: float) -> None:
        if self._rate:
            nursery.start_soon(self._run, started)

    async def _run(self, started: float) -> None:
        """Ask until the plan's duration is over, and return with the last answer."""
        give, dues = trio.open_memory_channel[float](math.inf)
        async with trio.open_nursery() as nursery, give:
            for turn in range(round(self._rate * self._plan.duration)):
                due = started + turn / self._rate
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
                    client = HttpClient(stream, self._plan.sent_host)
                    headers = {"Authorization": f"Bearer {token}"} if (token := self._plan.token) else {}
                    while due is not None and client.usable:
                        with trio.fail_after(PATIENCE):
                            answer = await client.ask(self._path, headers=headers)
                        self.statuses[str(answer.status)] += 1
                        self.seconds.append(trio.current_time() - due)
                        answers += 1
                        due = await _next(dues)
            except FAILURES:
                # A server may end a connection that is kept, and then a client asks again; a new one is another thing.
                self.statuses["asked again" if answers else "broken"] += 1
                due = due if answers else await _next(dues)


async def _next(dues: Dues) -> float | None:
    try:
        return await dues.receive()
    except trio.EndOfChannel:
        return None
