"""Who holds the event loop: a thread that looks at the loop's stack while a step goes on for too long.

A step that does not come to an await stops every request, probe and heartbeat, and nothing inside the loop can tell,
as nothing inside it runs. So a task says each few milliseconds that it was here, and a thread notices when it was not.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import structlog
import trio

# A hold that long makes /healthz say "fail", for RECENT seconds: probes and heartbeats were late.
SERIOUS = 1.0
RECENT = 60.0
# How many innermost frames are logged.
FRAMES = 12

log = structlog.get_logger(__name__)


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
        self._beat = now()
        self._culprit: tuple[str, str, float] | None = None  # and the seconds when it was seen
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
        with self._thread(threading.get_ident()):
            longest = 0.0
            while True:
                due = self._beat + self._interval
                await trio.sleep(self._interval)
                self._beat = self._now()
                lag = max(0.0, self._beat - due)
                self._observe_lag(lag)
                # The thread may have been kept out until now, and name the culprit only after the loop has gone on.
                longest = max(longest, lag)
                if self._culprit is not None:
                    self._note(longest)
                if lag < self.threshold:
                    longest = 0.0

    @contextmanager
    def _thread(self, ident: int) -> Iterator[None]:
        if not self.threshold:
            yield
            return
        self._beat = self._now()
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

    # on the thread

    def _look(self, ident: int) -> None:
        suspect: object = None
        told = 0.0
        before, worked_before = self._now(), _worked(ident)
        while not self._running.acquire(timeout=self._pause(before)):
            began, worked = self._now(), _worked(ident)
            now, beat = self._now(), self._beat
            late = now - beat - self._interval
            # A clock that stands still is a breakpoint's: what was slow on the way to it disturbs nobody at the prompt.
            if late < self.threshold / 2 or beat == told or now == began:
                suspect = None
            else:
                frame = sys._current_frames().get(ident)
                task = running_task(frame)
                # C code that keeps the interpreter to itself keeps us out, too: then once is enough, if it worked.
                kept_out = now - before > self.threshold and worked - worked_before > self.threshold / 2
                if task is not None and late > self.threshold and (task is suspect or kept_out):
                    told = beat
                    self._tell(task, frame, late)
                suspect = task
            before, worked_before = began, worked
        self._running.release()

    def _pause(self, began: float) -> float:
        """Return the seconds to the next look: none if this one was kept out in its middle, and saw what was before."""
        return 0.0 if self._now() - began > self.threshold / 2 else self._interval

    def _tell(self, task: Any, frame: FrameType | None, late: float) -> None:
        # Both at once, before anything that lets the loop's thread go on.
        context, places = dict(task.context.items()), list(traceback.walk_stack(frame))
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


def _worked(ident: int) -> float:
    """Return the processor's seconds that a thread has used, where the system tells."""
    if sys.platform != "linux":
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


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
