"""What `service load` does to the chat: members in rooms, some of whom write, beside the clients that ask.

Members that are sent away resume where they were, and repeat with the same id what was not answered: so a run may span
a rollout.
"""

import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from service.commands.load import Run
from service.commands.load_chat_check import Checker
from service.commands.load_plan import Bar, Plan, Report, counts, typical
from service.commands.websocket_client import ClosedError, WebsocketClient, open_stream

JOIN_LIMIT = 30.0  # seconds until the load begins with those who are there; more where there are many
JOINS_A_SECOND = 50  # at the least
JOINING = 50  # at the same time: a thousand at once would each wait for all the others
ANSWER_LIMIT = 5.0  # seconds for a send's answer; the service promises 3
SETTLE = 10.0  # seconds at the end for what is still on its way
SILENCE = 60.0  # seconds; the service pings each 20
PAUSE = 0.2  # seconds before a reconnect
LOST_LINE = (
    ClosedError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, RemoteProtocolError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChatPlan(Plan):
    """The plan, with so many members in so many rooms, of whom so many send `rate` messages a second together."""

    members: int
    writers: int
    rooms: int
    rate: float


@dataclass
class ChatReport(Report):
    plan: ChatPlan
    joined: int = 0  # members who are there now
    sent: int = 0
    acked: int = 0
    received: int = 0
    reconnects: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # sends answered with an error, by its code
    ack_times: list[float] = field(default_factory=list)
    delivery_times: list[float] = field(default_factory=list)
    violations: dict[str, int] = field(default_factory=dict)
    told_gaps: int = 0
    repeats: int = 0

    @property
    def kept(self) -> bool:
        """True when no guarantee was violated, and anything worked at all."""
        silent = self.plan.writers and not self.acked
        return super().kept and not silent and not any(self.violations.values())

    def times(self) -> dict[str, list[float]]:
        return super().times() | {"ack": self.ack_times, "delivery": self.delivery_times}

    def figures(self) -> dict[str, Any]:
        names = ("joined", "sent", "acked", "received", "reconnects", "refused", "violations", "told_gaps", "repeats")
        return super().figures() | {name: getattr(self, name) for name in names}

    def lines(self) -> list[str]:
        lines = super().lines()
        if self.plan.members:
            lines += [
                f"sends             {self.sent:,} sent, {self.acked:,} acked, refused: {counts(self.refused)}",
                f"members           {self.plan.members:,}, reconnected {self.reconnects:,} times",
                f"allowed           {self.repeats:,} repeats, {self.told_gaps:,} gaps that were told",
            ]
        return [*lines, f"violations        {counts(self.violations)}"]

    def bars(self, seconds: float) -> list[Bar]:
        total = self.plan.rate * self.plan.duration if self.plan.writers else 0
        words = f"{self.acked:,} acked of {self.sent:,} sent, {self.received:,} received{typical(self.ack_times)}"
        there = Bar("members", self.plan.members, self.joined, f"{self.joined:,} of {self.plan.members:,} there")
        return [there, *super().bars(seconds), Bar("chat", total, self.acked, words)]


async def _wait_for(line: WebsocketClient, kind: str) -> dict[str, Any]:
    """Return the next frame of a kind, for as long as nothing that counts can come; raises ClosedError for an error."""
    while (frame := await line.receive())["type"] != kind:
        if frame["type"] == "error":
            raise ClosedError(1006)  # the database may be away: try again
    return frame


class ChatRun(Run):
    report: ChatReport

    def __init__(self, report: ChatReport) -> None:
        super().__init__(report)
        self.plan = report.plan
        self.checker = Checker()
        self.unanswered: dict[str, tuple[int, dict[str, Any]]] = {}  # id: who sends it, and the frame
        self.all_joined = trio.Event()
        self._name = f"load-{uuid.uuid4().hex[:8]}"
        self._begun: dict[str, float] = {}
        self._lines: dict[int, WebsocketClient] = {}
        self._joining = trio.CapacityLimiter(JOINING)
        if not self.plan.members:
            self.all_joined.set()

    async def prepare(self, nursery: trio.Nursery) -> None:
        for number in range(self.plan.members):
            nursery.start_soon(self._be_member, number)
        with trio.move_on_after(JOIN_LIMIT + self.plan.members / JOINS_A_SECOND):
            await self.all_joined.wait()

    def start(self, nursery: trio.Nursery) -> None:
        super().start(nursery)
        for number in range(self.plan.writers):
            nursery.start_soon(self._write, number)

    async def settle(self) -> None:
        """Wait until every send is answered and everybody has what was acked; then reckon up."""
        with trio.move_on_after(SETTLE):
            while self.unanswered or self.checker.missing():  # noqa: ASYNC110  it has no event, and is the run's end
                await trio.sleep(0.1)
        self.report.violations = self.checker.violations(unanswered=len(self.unanswered))
        self.report.told_gaps, self.report.repeats = self.checker.told_gaps, self.checker.repeats

    def _room(self, number: int) -> str:
        return f"{self._name}-{number % self.plan.rooms}"

    async def _be_member(self, number: int) -> None:
        """Be in a room for ever; whatever ends the line, come back and resume."""
        while True:
            try:
                async with self._connected(number) as line:
                    while True:
                        self._take(number, await line.receive())
            except LOST_LINE:
                self.report.reconnects += 1
                await trio.sleep(PAUSE)

    @asynccontextmanager
    async def _connected(self, number: int) -> AsyncIterator[WebsocketClient]:
        async with open_stream(self.plan.url) as stream:
            line = WebsocketClient(stream, self._host)
            line.patience = SILENCE
            async with self._joining:
                await self._join(number, line)
            self._lines[number] = line
            self.report.joined = len(self._lines)
            if self.report.joined == self.plan.members:
                self.all_joined.set()
            try:
                for sender, frame in list(self.unanswered.values()):
                    if sender == number:
                        await line.send(frame)
                yield line
            finally:
                del self._lines[number]

    async def _join(self, number: int, line: WebsocketClient) -> None:
        room = self._room(number)
        since = self.checker.since(number, room)
        resume = {} if since is None else {"since": {"epoch": since.epoch, "seq": since.seq}}
        with trio.fail_after(ANSWER_LIMIT):
            await line.request(f"/ws?name=load-{number}", subprotocol="chat.v1")
            await _wait_for(line, "hello")
            await line.send({"type": "join", "room": room, "ref": "load", **resume})
            joined = await _wait_for(line, "joined")
        self.checker.joined(number, room, joined["epoch"], joined["from"], gap=joined["gap"])

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

    async def _write(self, number: int) -> None:
        """Send at an even pace, each writer a little after the one before it."""
        for turn in range(number, round(self.plan.rate * self.plan.duration), self.plan.writers):
            await trio.sleep_until(self.started + turn / self.plan.rate)
            if (line := self._lines.get(number)) is None:
                continue
            id_ = uuid.uuid4().hex
            frame = {"type": "send", "room": self._room(number), "id": id_, "text": f"load {self.report.sent}"}
            self.unanswered[id_] = number, frame
            self._begun[id_] = time.perf_counter()
            self.report.sent += 1
            with suppress(*LOST_LINE, LocalProtocolError):  # the line is ending; over the next one it is repeated
                await line.send(frame)
