"""`service load`: members that chat and clients that ask, over real sockets, at a given pace.

Members that are sent away resume where they were, and repeat with the same id what was not answered: so a run may span
a rollout. It is a client like any other and knows the service by its wire alone.
"""

import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

import h11
import trio
from wsproto.utilities import LocalProtocolError

from service.commands.load_check import Checker
from service.commands.load_http import get
from service.commands.websocket_client import ClosedError, WebsocketClient, open_stream

ANSWER_LIMIT = 5.0  # seconds for a send's answer; the service promises 3
SETTLE = 10.0  # seconds at the end for what is still on its way
CONNECTIONS = 20  # of HTTP
SILENCE = 60.0  # seconds; the service pings each 20
PAUSE = 0.2  # seconds before a reconnect
LOST_LINE = (ClosedError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


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


async def run_load(plan: Plan, show: Callable[[Report, float], object]) -> Report:
    """Load for `plan.duration` seconds and wait for what is on its way; `show` is called a few times a second."""
    report = Report(plan)
    run = _Run(plan, report)
    async with trio.open_nursery() as nursery:
        for number in range(plan.members):
            nursery.start_soon(run.member, number)
        with trio.move_on_after(30):
            await run.all_joined.wait()
        run.started = trio.current_time()
        nursery.start_soon(_tell, run, show)
        async with trio.open_nursery() as work:
            for number in range(plan.writers):
                work.start_soon(run.write, number)
            for number in range(CONNECTIONS if plan.http else 0):
                work.start_soon(run.ask, number)
        with trio.move_on_after(SETTLE):
            await run.wait_settled()
        nursery.cancel_scope.cancel()
    report.violations = run.checker.violations(unanswered=len(run.unanswered))
    report.told_gaps, report.repeats = run.checker.told_gaps, run.checker.repeats
    show(report, plan.duration)
    return report


async def _tell(run: "_Run", show: Callable[[Report, float], object]) -> None:
    while True:
        show(run.report, trio.current_time() - run.started)
        await trio.sleep(0.2)


async def _wait_for(chat: WebsocketClient, kind: str) -> dict[str, Any]:
    """Return the next frame of a kind, for as long as nothing that counts can come; raises ClosedError for an error."""
    while (frame := await chat.receive())["type"] != kind:
        if frame["type"] == "error":
            raise ClosedError(1006)  # the database may be away: try again
    return frame


class _Run:
    def __init__(self, plan: Plan, report: Report) -> None:
        self.plan = plan
        self.report = report
        self.checker = Checker()
        self.unanswered: dict[str, tuple[int, dict[str, Any]]] = {}  # id: who sends it, and the frame
        self.all_joined = trio.Event()
        self.started = 0.0
        self._name = f"load-{uuid.uuid4().hex[:8]}"
        self._begun: dict[str, float] = {}
        self._chats: dict[int, WebsocketClient] = {}
        self._host = plan.host or urlsplit(plan.url).netloc
        if not plan.members:
            self.all_joined.set()

    def room(self, number: int) -> str:
        return f"{self._name}-{number % self.plan.rooms}"

    # chat

    async def member(self, number: int) -> None:
        """Be in a room for ever; whatever ends the line, come back and resume."""
        while True:
            try:
                async with self._connected(number) as chat:
                    while True:
                        self._take(number, await chat.receive())
            except LOST_LINE:
                self.report.reconnects += 1
                await trio.sleep(PAUSE)

    @asynccontextmanager
    async def _connected(self, number: int) -> AsyncIterator[WebsocketClient]:
        room = self.room(number)
        async with open_stream(self.plan.url) as stream:
            chat = WebsocketClient(stream, self._host)
            chat.patience = SILENCE
            since = self.checker.since(number, room)
            resume = {} if since is None else {"since": {"epoch": since.epoch, "seq": since.seq}}
            with trio.fail_after(ANSWER_LIMIT):
                await chat.request(f"/ws?name=load-{number}", subprotocol="chat.v1")
                await _wait_for(chat, "hello")
                await chat.send({"type": "join", "room": room, "ref": "load", **resume})
                joined = await _wait_for(chat, "joined")
            self.checker.joined(number, room, joined["epoch"], joined["from"], gap=joined["gap"])
            self._chats[number] = chat
            if len(self._chats) == self.plan.members:
                self.all_joined.set()
            try:
                for sender, frame in list(self.unanswered.values()):
                    if sender == number:
                        await chat.send(frame)
                yield chat
            finally:
                del self._chats[number]

    def _take(self, number: int, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "message":
                self.report.received += 1
                if frame["id"] in self._begun:
                    self.report.delivery_times.append(time.perf_counter() - self._begun[frame["id"]])
                self.checker.received(number, frame["room"], frame["epoch"], frame["seq"], frame["id"])
            case "ack":
                if self.unanswered.pop(frame["id"], None) is not None:
                    self.report.acked += 1
                    self.report.ack_times.append(time.perf_counter() - self._begun[frame["id"]])
                self.checker.acked(frame["room"], frame["epoch"], frame["seq"], frame["id"], dup=frame["dup"])
            case "joined":  # moved on by the service: a gap that it told
                self.checker.joined(number, frame["room"], frame["epoch"], frame["from"], gap=frame["gap"])
            case "error":
                self.unanswered.pop(frame.get("id") or "", None)
                self.report.refused[frame["code"]] += 1

    async def write(self, number: int) -> None:
        """Send at an even pace, each writer a little after the one before it."""
        for turn in range(number, round(self.plan.rate * self.plan.duration), self.plan.writers):
            await trio.sleep_until(self.started + turn / self.plan.rate)
            if (chat := self._chats.get(number)) is None:
                continue
            id_ = uuid.uuid4().hex
            frame = {"type": "send", "room": self.room(number), "id": id_, "text": f"load {self.report.sent}"}
            self.unanswered[id_] = number, frame
            self._begun[id_] = time.perf_counter()
            self.report.sent += 1
            with suppress(*LOST_LINE, LocalProtocolError):  # the line is ending; over the next one it is repeated
                await chat.send(frame)

    async def wait_settled(self) -> None:
        """Return when every send is answered, and everybody has what was acked."""
        while self.unanswered or self.checker.missing():  # noqa: ASYNC110  it has no event, and is the end of the run
            await trio.sleep(0.1)

    # HTTP

    async def ask(self, number: int) -> None:
        """Ask again and again over one connection, and over a new one when that is gone."""
        pace = CONNECTIONS / self.plan.http
        due = self.started + pace * number / CONNECTIONS
        while due < self.started + self.plan.duration:
            try:
                async with open_stream(self.plan.url) as stream:
                    connection = h11.Connection(h11.CLIENT)
                    while due < self.started + self.plan.duration and connection.our_state is h11.IDLE:
                        await trio.sleep_until(due)
                        due += pace
                        begun = time.perf_counter()
                        status = await get(stream, connection, host=self._host, path=self.plan.path)
                        self.report.statuses[str(status)] += 1
                        self.report.http_times.append(time.perf_counter() - begun)
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError):
                self.report.statuses["broken"] += 1
                await trio.sleep(PAUSE)
                due = max(due, trio.current_time())
