"""Tasks that run for ever beside the requests, and what the database, or a service they call, keeps them from.

Theory of operation. `keep_running` runs a function until it returns. An error of the database of any kind, or PeerAway,
alone or in a group, ends that run and begins another after a pause; anything else is a bug, leaves here, and ends the
process.

A task is well or failing. It becomes failing with an error that ends its run, and with one of a unit of work that it
ran, or that a task of its nursery did, even when it caught that itself: the door tells, and finds the task by a
context variable, which tasks inherit. It is well again when it returns, or when PROBATION has passed since its latest
error and none of its units is on the way: a pause is shorter than that, so a task that fails, waits and fails again
is failing all the time, and so is one whose next statement waits for a lock, or the listener that waits to be let in.
Each of the two changes is one line in the log, and so is another text of the error; a thousand failures alike are one
line.

Only the event loop touches any of this.
"""

import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import structlog
import trio

from service.platform.database.sqlstate import DATABASE_ERRORS, kind, one_line
from service.platform.errors import Busy, leaves

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds between two runs; each is drawn from half of it to all
PROBATION = 2.5  # seconds without an error after which a task is well; with the pause, less than 5
SETTLE = 0.25  # seconds between two looks at whether those that failed are well

log = structlog.get_logger(__name__)


class BackgroundTask:
    """What is known of one of them. `error` is empty while it is well."""

    __slots__ = ("error", "failed_at", "latest", "name", "units")

    def __init__(self, name: str) -> None:
        self.name = name
        self.error = ""
        self.failed_at = float("-inf")
        self.latest: BaseException | None = None
        self.units = 0  # on the way


_current: ContextVar[BackgroundTask | None] = ContextVar("background task", default=None)


def in_background() -> bool:
    """Tell whether one of these tasks runs, or a task beneath one."""
    return _current.get() is not None


class Background:
    """All tasks of one database, and their errors by kind."""

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self._failing: dict[BackgroundTask, None] = {}
        self._trouble = trio.Event()

    @property
    def failing(self) -> dict[str, str]:
        """Return the names of the tasks that are kept from their work, with the reasons."""
        return {task.name: task.error for task in self._failing}

    async def keep_running(self, function: Callable[..., Awaitable[object]], *args: Any, name: str = "") -> None:
        """Run a function until it returns; whenever the database or a peer makes it fail, run it again."""
        task = BackgroundTask(name or name_of(function))
        token = _current.set(task)
        pause = FIRST_PAUSE
        try:
            while True:
                begun = trio.current_time()
                try:
                    await function(*args)
                except* DATABASE_ERRORS as group:
                    for error in leaves(group):
                        self.note_error(task, error)
                else:
                    return
                if trio.current_time() - begun > PROBATION:
                    pause = FIRST_PAUSE
                await trio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  spreads replicas, keeps no secret
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            _current.reset(token)
            self._note_well(task)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note what becomes of a unit of work that one of these tasks runs; of others, nothing."""
        task = _current.get()
        if task is None:
            yield
            return
        task.units += 1
        try:
            yield
        except DATABASE_ERRORS as error:
            self.note_error(task, error)
            raise
        finally:
            task.units -= 1

    def note_error(self, task: BackgroundTask, error: BaseException) -> None:
        if error is task.latest:
            return  # it was noted where it arose
        task.latest = error
        self.failures[kind(error)] += 1
        if isinstance(error, Busy):
            return  # all connections are in use: that is load, and has a measure of its own
        task.failed_at = trio.current_time()
        self._failing[task] = None
        self._trouble.set()
        text = one_line(error)
        if text != task.error:
            task.error = text
            log.warning("background task failing", task=task.name, kind=kind(error), error=text)

    async def settle(self) -> None:
        """Find out, for ever, which of those that failed are well again."""
        while True:
            await self._trouble.wait()
            self._trouble = trio.Event()
            while self._failing:
                await trio.sleep(SETTLE)
                now = trio.current_time()
                for task in tuple(self._failing):
                    if not task.units and now - task.failed_at > PROBATION:
                        self._note_well(task)

    def _note_well(self, task: BackgroundTask) -> None:
        task.latest = None
        if task in self._failing:
            del self._failing[task]
            task.error = ""
            log.info("background task well again", task=task.name)


def name_of(function: Callable[..., object]) -> str:
    """Return a name that people find in the code: the module's last word and the function's name."""
    while isinstance(function, partial):
        function = function.func
    module = getattr(function, "__module__", "") or ""
    return f"{module.rpartition('.')[2]}.{getattr(function, '__qualname__', type(function).__name__)}"
