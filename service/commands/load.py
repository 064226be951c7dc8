"""`service load`: members that chat and clients that ask, over real sockets, at a given pace.

Members that are sent away resume where they were, and repeat with the same id what was not answered: so a run may span
a rollout. It is a client like any other and knows the service by its wire alone.
"""

import math
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import trio
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from service.commands.load_check import Checker
from service.commands.load_http import Asking
from service.commands.load_plan import Plan, Report
from service.commands.websocket_client import ClosedError, WebsocketClient, open_stream

ANSWER_LIMIT = 5.0  # seconds for a send's answer; the service promises 3
SETTLE = 10.0  # seconds at the end for what is still on its way
JOIN_LIMIT = 30.0  # seconds until the load begins with those who are there; more where there are many
JOINS_A_SECOND = 50  # at the least
JOINING = 50  # at the same time: a thousand at once would each wait for all the others
SILENCE = 60.0  # seconds; the service pings each 20
PAUSE = 0.2  # seconds before a reconnect
LOST_LINE = (
    ClosedError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, RemoteProtocolError,
)  # fmt: skip


async def run_load(plan: Plan, show: Callable[[Report, float], object]) -> Report:
    """Load for `plan.duration` seconds and wait for what is on its way; `show` is called a few times a second."""
    report = Report(plan)
    run = _Run(plan, report)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell, run, show)
        for number in range(plan.members):
            nursery.start_soon(run.member, number)
        with trio.move_on_after(JOIN_LIMIT + plan.members / JOINS_A_SECOND):
            await run.all_joined.wait()
        run.started = trio.current_time()
        async with trio.open_nursery() as work:
            for number in range(plan.writers):
                work.start_soon(run.write, number)
            if plan.http:
                work.start_soon(Asking(plan, report, run.host).run, run.started)
        with trio.move_on_after(SETTLE):
            await run.wait_settled()
        nursery.cancel_scope.cancel()
    report.violations = run.checker.violations(unanswered=len(run.unanswered))
    report.told_gaps, report.repeats = run.checker.told_gaps, run.checker.repeats
    show(report, plan.duration)
    return report


async def _tell(run: "_Run", show: Callable[[Report, float], object]) -> None:
    while True:
        show(run.report, max(0.0, trio.current_time() - run.started))
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
        self.started = math.inf
        self._name = f"load-{uuid.uuid4().hex[:8]}"
        self._begun: dict[str, float] = {}
        self._chats: dict[int, WebsocketClient] = {}
        self.host = plan.host or urlsplit(plan.url).netloc
        self._joining = trio.CapacityLimiter(JOINING)
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
        async with open_stream(self.plan.url) as stream:
            chat = WebsocketClient(stream, self.host)
            chat.patience = SILENCE
            async with self._joining:
                await self._join(number, chat)
            self._chats[number] = chat
            self.report.joined = len(self._chats)
            if self.report.joined == self.plan.members:
                self.all_joined.set()
            try:
                for sender, frame in list(self.unanswered.values()):
                    if sender == number:
                        await chat.send(frame)
                yield chat
            finally:
                del self._chats[number]

    async def _join(self, number: int, chat: WebsocketClient) -> None:
        room = self.room(number)
        since = self.checker.since(number, room)
        resume = {} if since is None else {"since": {"epoch": since.epoch, "seq": since.seq}}
        with trio.fail_after(ANSWER_LIMIT):
            await chat.request(f"/ws?name=load-{number}", subprotocol="chat.v1")
            await _wait_for(chat, "hello")
            await chat.send({"type": "join", "room": room, "ref": "load", **resume})
            joined = await _wait_for(chat, "joined")
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
