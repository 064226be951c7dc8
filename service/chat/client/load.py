"""What `service load` does to the chat: members in rooms, some of whom write, beside the clients that ask.

Members that are sent away resume where they were, and repeat with the same id what was not answered: so a run may span
a rollout.
"""

import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import trio
import typer

from service.chat.client.load_check import Checker
from service.chat.client.stranger import NoChatError, Stranger
from service.platform.client import (
    Bar,
    ClosedError,
    NothingThere,
    Part,
    Plan,
    WebsocketClient,
    counts,
    open_stream,
    typical,
)
from service.platform.server import CloseReason

JOIN_LIMIT = 30.0  # seconds until the load begins with those who are there; more where there are many
JOINS_A_SECOND = 50  # at the least
JOINING = 50  # at the same time: a thousand at once would each wait for all the others
ANSWER_LIMIT = 5.0  # seconds for a send's answer; the service promises 3
SETTLE = 10.0  # seconds at the end for what is still on its way
SILENCE = 60.0  # seconds; the service pings each 20
PAUSE = 0.2  # seconds before a reconnect
LOST_LINE = (
    ClosedError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `service load`: so many members in so many rooms, of whom so many send."""

    members: Annotated[int, typer.Option(min=0, help="Members of the chat, each with a websocket; 0 is no chat.")] = 50
    writers: Annotated[int, typer.Option(min=0, help="Number of members that send.")] = 10
    rooms: Annotated[int, typer.Option(min=1, help="Number of rooms.")] = 5
    rate: Annotated[float, typer.Option(min=0.1, max=1e6, help="Messages per second, all writers together.")] = 50


async def _wait_for(line: WebsocketClient, kind: str) -> dict[str, Any]:
    """Return the next frame of a kind, for as long as nothing that counts can come; raises ClosedError for an error."""
    while (frame := await line.receive())["type"] != kind:
        if frame["type"] == "error":
            raise ClosedError(CloseReason.ABNORMAL_CLOSURE)  # the database may be away: try again
    return frame


class Load(Part):
    """The chat's part of a run."""

    def __init__(self, plan: Plan, options: Options) -> None:
        self.plan = plan
        self.options = replace(options, writers=min(options.writers, options.members))
        self.checker = Checker()
        self.joined = 0  # members who are there now, or were when all was settled
        self.sent = 0
        self.acked = 0
        self.received = 0
        self.reconnects = 0
        self._settled = False
        self.not_joining = ""  # why somebody who was never there could not join, the last time
        self.refused: Counter[str] = Counter()  # sends answered with an error, by its code
        self.ack_times: list[float] = []
        self.delivery_times: list[float] = []
        self.violations: dict[str, int] = {}
        self._unanswered: dict[str, tuple[int, dict[str, Any]]] = {}  # id: who sends it, and the frame
        self._all_joined = trio.Event()
        self._name = f"load-{uuid.uuid4().hex[:8]}"
        self._begun: dict[str, float] = {}
        self._lines: dict[int, WebsocketClient] = {}
        self._ever_joined: set[int] = set()
        self._joining = trio.CapacityLimiter(JOINING)
        self._stranger = Stranger(plan.url, with_token=plan.token_file is not None)
        if not options.members:
            self._all_joined.set()

    async def prepare(self, nursery: trio.Nursery) -> None:
        for number in range(self.options.members):
            nursery.start_soon(self._be_member, number)
        with trio.move_on_after(JOIN_LIMIT + self.options.members / JOINS_A_SECOND):
            await self._all_joined.wait()

    def start(self, nursery: trio.Nursery, started: float) -> None:
        for number in range(self.options.writers):
            nursery.start_soon(self._write, number, started)

    async def settle(self) -> None:
        """Wait until every send is answered and everybody has what was acked; then reckon up."""
        with trio.move_on_after(SETTLE):
            while self._unanswered or self.checker.missing():  # noqa: ASYNC110  it has no event, and is the run's end
                await trio.sleep(0.1)
        self.violations = self.checker.violations(unanswered=len(self._unanswered))
        self._settled = True

    @property
    def kept(self) -> bool:
        """True when no guarantee was violated, and anything worked at all."""
        silent = self.options.writers and not self.acked
        return not silent and not any(self.violations.values())

    def asked(self) -> dict[str, Any]:
        return asdict(self.options)

    def times(self) -> dict[str, Sequence[float]]:
        return {"ack": self.ack_times, "delivery": self.delivery_times}

    def figures(self) -> dict[str, Any]:
        names = ("joined", "sent", "acked", "received", "reconnects", "refused", "violations")
        allowed = {"told_gaps": self.checker.told_gaps, "repeats": self.checker.repeats}
        return {name: getattr(self, name) for name in names} | allowed

    def lines(self) -> list[str]:
        if not self.options.members:
            return []
        missing = len(self._ever_joined) < self.options.members
        joined = f", of whom {len(self._ever_joined):,} joined ({self.not_joining})" if missing else ""
        return [
            f"sends             {self.sent:,} sent, {self.acked:,} acked, refused: {counts(self.refused)}",
            f"members           {self.options.members:,}{joined}, reconnected {self.reconnects:,} times",
            f"allowed           {self.checker.repeats:,} repeats, {self.checker.told_gaps:,} gaps that were told",
            f"violations        {counts(self.violations)}",
        ]

    def bars(self) -> list[Bar]:
        members = self.options.members
        total = self.options.rate * self.plan.duration if self.options.writers else 0
        words = f"{self.acked:,} acked of {self.sent:,} sent, {self.received:,} received{typical(self.ack_times)}"
        there = Bar("members", members, self.joined, f"{self.joined:,} of {members:,} there")
        return [there, Bar("chat", total, self.acked, words)]

    def _room(self, number: int) -> str:
        return f"{self._name}-{number % self.options.rooms}"

    async def _be_member(self, number: int) -> None:
        """Be in a room for ever; whatever ends the line, come back and resume."""
        while True:
            try:
                async with self._connected(number) as line:
                    while True:
                        self._take(number, await line.receive())
            except LOST_LINE as lost:
                if number in self._ever_joined:
                    self.reconnects += 1
                else:
                    self._judge(number, lost)
                    self.not_joining = str(lost) or "no answer"
                await trio.sleep(PAUSE)

    def _judge(self, number: int, lost: BaseException) -> None:
        """Raise NothingThere where nobody ever joined and it shows that no chat is there: no reason to wait.

        Any answer of a status shows it; endings without one are counted for the first member, in all his tries.
        """
        refused = isinstance(lost, ClosedError) and lost.code < CloseReason.NORMAL_CLOSURE
        if not self._ever_joined and (refused or not number):
            try:
                self._stranger.judge(lost)
            except NoChatError as error:
                raise NothingThere(f"{error}; load it without by --members 0") from None

    @asynccontextmanager
    async def _connected(self, number: int) -> AsyncIterator[WebsocketClient]:
        async with AsyncExitStack() as stack:
            async with self._joining:  # and no sooner connected: a service ends what says nothing for some seconds
                stream = await stack.enter_async_context(open_stream(self.plan.url))
                line = await stack.enter_async_context(WebsocketClient(stream, self.plan.sent_host))
                line.patience = SILENCE
                await self._join(number, line)
            self._lines[number] = line
            self._ever_joined.add(number)
            self._count_joined()
            if self.joined == self.options.members:
                self._all_joined.set()
            try:
                for sender, frame in list(self._unanswered.values()):
                    if sender == number:
                        await line.send(frame)
                yield line
            finally:
                del self._lines[number]
                self._count_joined()

    def _count_joined(self) -> None:
        if not self._settled:  # then all of them leave
            self.joined = len(self._lines)

    async def _join(self, number: int, line: WebsocketClient) -> None:
        room = self._room(number)
        since = self.checker.since(number, room)
        resume = {} if since is None else {"since": {"epoch": since.epoch, "seq": since.seq}}
        with trio.fail_after(ANSWER_LIMIT):
            await line.request(f"/ws?name=load-{number}", subprotocol="chat.v1", token=self.plan.token)
            with self._stranger.greeting():
                await _wait_for(line, "hello")
            await line.send({"type": "join", "room": room, "ref": "load", **resume})
            joined = await _wait_for(line, "joined")
        self.checker.joined(number, room, joined["epoch"], joined["from"], gap=joined["gap"])

    def _take(self, number: int, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "message":
                self.received += 1
                if frame["id"] in self._begun:
                    self.delivery_times.append(time.perf_counter() - self._begun[frame["id"]])
                self.checker.received(number, frame["room"], frame["epoch"], frame["seq"], frame["id"])
            case "ack":
                if self._unanswered.pop(frame["id"], None) is not None:
                    self.acked += 1
                    self.ack_times.append(time.perf_counter() - self._begun[frame["id"]])
                self.checker.acked(frame["room"], frame["epoch"], frame["seq"], frame["id"], dup=frame["dup"])
            case "joined":  # moved on by the service: a gap that it told
                self.checker.joined(number, frame["room"], frame["epoch"], frame["from"], gap=frame["gap"])
            case "error":
                self._unanswered.pop(frame.get("id") or "", None)
                self.refused[frame["code"]] += 1

    async def _write(self, number: int, started: float) -> None:
        """Send at an even pace, each writer a little after the one before it."""
        for turn in range(number, round(self.options.rate * self.plan.duration), self.options.writers):
            await trio.sleep_until(started + turn / self.options.rate)
            if (line := self._lines.get(number)) is None:
                continue
            id_ = uuid.uuid4().hex
            frame = {"type": "send", "room": self._room(number), "id": id_, "text": f"load {self.sent}"}
            self._unanswered[id_] = number, frame
            self._begun[id_] = time.perf_counter()
            self.sent += 1
            with suppress(*LOST_LINE):  # the line is ending; over the next one it is repeated
                await line.send(frame)
