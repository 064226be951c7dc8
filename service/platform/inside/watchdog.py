"""Who holds the event loop: a thread that looks at the loop's stack while a step goes on for too long.

A step that does not come to an await stops every request, probe and heartbeat, and nothing inside the loop can tell,
as nothing inside it runs. So a task says each few milliseconds that it was here, and a thread notices when it was not.

C code that keeps the interpreter to itself keeps that thread out too, and who gets the interpreter next is chance:
beside four threads that waited, what came after was named for one such hold of five. So a timer of the processor's
time, which each beat sets back, has the loop's own thread look as well, by a signal. Python handles it as soon as the C
code returns, before it lets anybody else go on.
"""

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import structlog
import trio

# A hold that long makes /healthz say "fail", for RECENT seconds: probes and heartbeats were late.
SERIOUS = 1.0
RECENT = 60.0
# How many innermost frames are logged.
FRAMES = 12

log = structlog.get_logger(__name__)

type Places = list[tuple[FrameType, int]]


class Beat(NamedTuple):
    """When the loop was here last, in seconds: of the clock, which may stand; and on the wall."""

    at: float
    seen: float


class Catch(NamedTuple):
    """Who held the loop after a beat."""

    beat: Beat
    task: Any
    places: Places


@dataclass(frozen=True, slots=True)
class Hold:
    """One time that the loop was held: by which task, in which line, for how long, until when (monotonic)."""

    task: str
    where: str
    seconds: float
    until: float


class Watchdog:
    """Counts and remembers steps of more than `threshold` seconds; 0 watches nothing but the lag.

    `now` is the time that passes for the loop, in seconds, and is asked from a thread: at a breakpoint it stands still.
    """

    def __init__(
        self,
        threshold: float,
        observe_lag: Callable[[float], None] = lambda _: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.threshold = threshold
        self.holds = 0
        self.last: Hold | None = None
        self._observe_lag = observe_lag
        self._now = now
        # Between two beats, and two looks. A hold is noticed, and who it is, before it is twice the threshold: it may
        # have begun just after a beat, and be too short yet at a look. Not shorter, as each wakes an idle process.
        self._interval = max(0.005, min(0.4 * threshold or 0.1, 0.1))
        self._beat = self._here()
        self._told: Beat | None = None  # after which a hold was told last
        self._culprit: tuple[str, str, float] | None = None  # and the seconds when it was seen
        self._caught: Catch | None = None
        self._at_signal: tuple[Any, float] = None, 0.0  # the task, and the thread's seconds of processor time
        self._running = threading.Lock()  # held while the thread is to run

    def condition(self) -> dict[str, Any]:
        """Return the check for /healthz; age and duration are of the last hold, in seconds."""
        if self.last is None:
            return {"ok": True, "state": "free", "age": 0, "duration": 0}
        age = time.monotonic() - self.last.until
        return {
            "ok": self.last.seconds < SERIOUS or age > RECENT,
            "state": f"last held by {self.last.task} at {self.last.where}, {self.holds} times in all",
            "age": round(age, 3),
            "duration": round(self.last.seconds, 3),
        }

    async def run(self) -> None:
        """Watch until cancelled."""
        with self._thread(threading.get_ident()), self._signal() as set_back:
            longest = 0.0
            while True:
                before = self._beat
                set_back()
                await trio.sleep(self._interval)
                self._beat = self._here()
                lag = max(0.0, self._beat.at - before.at - self._interval)
                self._observe_lag(lag)
                # The thread may have been kept out until now, and name the culprit only after the loop has gone on.
                longest = max(longest, lag)
                if self._caught is not None and lag > self.threshold and before is not self._told:
                    self._tell(self._caught, lag)
                if self._culprit is not None:
                    self._note(longest)
                if lag < self.threshold:
                    longest = 0.0

    def _here(self) -> Beat:
        return Beat(self._now(), time.perf_counter())

    @contextmanager
    def _thread(self, ident: int) -> Iterator[None]:
        if not self.threshold:
            yield
            return
        self._beat = self._here()
        thread = threading.Thread(target=self._look, args=(ident,), name="watchdog", daemon=True)
        self._running.acquire()
        thread.start()
        try:
            yield
        finally:
            self._running.release()
            thread.join(1)

    def _note(self, seconds: float) -> None:
        """Count a hold that one step caused; a lag that many short steps caused is load, and has no culprit."""
        culprit, self._culprit = self._culprit, None
        if culprit is not None:
            task, where, seen = culprit
            self.holds += 1
            self.last = Hold(task, where, seconds=max(seconds, seen), until=time.monotonic())
            log.warning("event loop free again", task=task, where=where, seconds=round(self.last.seconds, 3))

    # by the signal, on the loop's thread

    @contextmanager
    def _signal(self) -> Iterator[Callable[[], None]]:
        """Yield what sets the timer back. Only the main thread may have the signal; a profiler that has it keeps it."""
        main = threading.current_thread() is threading.main_thread()
        if not self.threshold or not main or signal.getsignal(signal.SIGPROF) != signal.SIG_DFL:
            yield lambda: None
            return
        period = self.threshold / 4

        def set_back() -> None:
            self._caught, self._at_signal = None, (None, time.thread_time())
            signal.setitimer(signal.ITIMER_PROF, period, period)

        signal.signal(signal.SIGPROF, self._catch)
        try:
            yield set_back
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, signal.SIG_IGN)  # drops one that is on its way, which would end the process
            signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def _catch(self, _: int, frame: FrameType | None) -> None:
        # In the middle of anything, a log line too: what is seen is told later.
        frame = self._interrupted(frame)
        beat, (task_before, worked_before) = self._beat, self._at_signal
        task, worked = running_task(frame), time.thread_time()
        self._at_signal = task, worked
        late = time.perf_counter() - beat.seen - self._interval
        if task is None or late < self.threshold or self._caught is not None:
            return
        # C code kept the signal out, too; or else somebody was here at the last one and has not come to an await.
        if worked - worked_before > self.threshold / 2 or task is task_before:
            self._caught = Catch(beat, task, list(traceback.walk_stack(frame)))

    # on the thread

    def _look(self, ident: int) -> None:
        suspect: object = None
        while not self._running.acquire(timeout=self._interval):
            began = self._now()
            now, beat = self._now(), self._beat
            late = now - beat.at - self._interval
            # A clock that stands still is a breakpoint's: what was slow on the way to it disturbs nobody at the prompt.
            if late < self.threshold / 2 or beat is self._told or now == began:
                suspect = None
            else:
                frame = self._interrupted(sys._current_frames().get(ident))
                task = running_task(frame)
                if task is not None and late > self.threshold and task is suspect:
                    caught = self._caught
                    mine = Catch(beat, task, list(traceback.walk_stack(frame)))
                    self._tell(caught if caught is not None and caught.beat is beat else mine, late)
                suspect = task
        self._running.release()

    def _interrupted(self, frame: FrameType | None) -> FrameType | None:
        """Return what the signal's looks have interrupted, each in the middle of the one before, or else this frame."""
        within = frame
        while within is not None:
            if within.f_code is self._catch.__code__:
                frame = within.f_back
            within = within.f_back
        return frame

    def _tell(self, caught: Catch, late: float) -> None:
        # Both at once, before anything that lets the loop's thread go on.
        self._told, (_, task, places) = caught.beat, caught
        context = dict(task.context.items())
        request_id = next((value for var, value in context.items() if var.name == "structlog_request_id"), "")
        stack = culprit_stack(places)
        self._culprit = task.name, _place(stack), late
        log.error(
            "event loop held",
            task=task.name,
            where=_place(stack),
            seconds=round(late, 3),
            request_id=request_id if isinstance(request_id, str) else "",  # structlog unsets it by an Ellipsis
            stack="".join(traceback.format_list(stack[-FRAMES:])),
        )


def _place(stack: list[traceback.FrameSummary]) -> str:
    """Return file and line of the innermost call that is not a library's."""
    ours = [entry for entry in stack if "site-packages" not in entry.filename and "/lib/python" not in entry.filename]
    return f"{(ours or stack)[-1].filename}:{(ours or stack)[-1].lineno}" if stack else "unknown"


def running_task(frame: FrameType | None) -> Any:
    """Return the task whose step a frame of the loop's thread belongs to; None between two steps."""
    while frame is not None:
        if frame.f_code.co_name == "unrolled_run":
            return frame.f_locals.get("task")
        frame = frame.f_back
    return None


def culprit_stack(places: list[tuple[FrameType, int]]) -> list[traceback.FrameSummary]:
    """Return the stack from the task's own function on, the innermost call last."""
    entries = traceback.StackSummary.extract(reversed(places))
    starts = [number for number, entry in enumerate(entries) if entry.name == "unrolled_run"]
    return entries[starts[-1] + 1 :] if starts else list(entries)
