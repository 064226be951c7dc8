"""Who waits for what: the tree of nurseries and tasks, as Trio knows it, and the threads. Reads; changes nothing.

Built in one go, so that it is one moment's truth. Tasks that are alike, as those of thousands of idle websockets are,
are shown once and counted.
"""

import itertools
import math
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from service.platform.http.activities import activity
from service.platform.seams import Seam

# There is no public way to a task's cancel scopes, nor to the order in which tasks began.
SEAMS = (
    Seam("trio.lowlevel:Task", sets=("_cancel_status", "_counter")),
    Seam("trio:Nursery", sets=("_cancel_status",)),
    Seam("trio._core._run:CancelStatus", sets=("_parent", "_scope")),
)
# After so many tasks the rest is only counted: the loop stands still meanwhile.
MOST_TASKS = 10_000
_PLUMBING = {"_real_async_yield", "_async_yield", "wait_task_rescheduled", "__aenter__"}
_WATCHING = ("watchdog", "one cpu", "OtelBatch")  # how threads are named that have nothing to tell
_HERE = str(Path(__file__).parents[3]) + "/"


@dataclass(frozen=True, slots=True)
class Scope:
    """A cancel scope that could matter: seconds until its deadline, whether it shields, whether it was cancelled."""

    left: float | None
    shield: bool
    cancelled: bool

    def __str__(self) -> str:
        parts = [] if self.left is None else [f"deadline in {self.left:.1f} s"]
        parts += ["shielded"] * self.shield + ["cancelled"] * self.cancelled
        return ", ".join(parts)


@dataclass(slots=True)
class Node:
    """A task: where it waits, from its own function to the innermost await, and what it works for."""

    name: str
    where: tuple[str, ...]
    doing: str
    seconds: float | None  # since that began; nobody knows when a task did
    scopes: list[Scope]
    nurseries: list[list["Node"]] = field(default_factory=list)
    alike: int = 1
    key: tuple[Any, ...] = ()  # what two tasks that are alike have in common

    def lines(self, margin: str = "", branch: str = "") -> Iterator[str]:
        """Yield the text of this task and of those below it."""
        times = f" ×{self.alike}" if self.alike > 1 else ""
        since = "" if self.seconds is None else f" for {self.seconds:.1f} s"
        doing = f"  [{self.doing}{since}]" if self.doing else ""
        yield f"{margin}{branch}{self.name}{times}{doing}"
        below = margin + {"├─ ": "│  ", "└─ ": "   "}.get(branch, "")
        children = list(itertools.chain.from_iterable(self.nurseries))
        bar = "│  " if children else "   "
        for where in self.where:
            yield f"{below}{bar}at {where}"
        for scope in self.scopes:
            yield f"{below}{bar}({scope})"
        for number, child in enumerate(children, 1):
            yield from child.lines(below, "└─ " if number == len(children) else "├─ ")

    def document(self) -> dict[str, Any]:
        """Return the same for JSON; times are seconds."""
        return {
            "task": self.name,
            "alike": self.alike,
            "at": list(self.where),
            "doing": self.doing,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "scopes": [{"left": s.left, "shield": s.shield, "cancelled": s.cancelled} for s in self.scopes],
            "nurseries": [[child.document() for child in children] for children in self.nurseries],
        }


@dataclass(frozen=True, slots=True)
class Tree:
    """One moment of the process."""

    root: Node
    threads: list[tuple[str, str]]  # name, and where it is

    @property
    def text(self) -> str:
        threads = [f"{name}\n   at {where}" for name, where in self.threads]
        return "\n".join([*self.root.lines(), *(["", "threads", *threads] if threads else [])])

    def document(self) -> dict[str, Any]:
        threads = [{"thread": name, "at": where} for name, where in self.threads]
        return {"tasks": self.root.document(), "threads": threads}


def task_tree() -> Tree:
    """Return the tree, from Trio's own root on. For the event loop's thread only."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # noqa: S101  there is one while anything runs
    return Tree(_node(root, itertools.count(1), trio.current_time()), _threads())


def _node(task: trio.lowlevel.Task, counter: Iterator[int], now: float) -> Node:
    working = task.context.get(activity)
    node = Node(
        name=task.name,
        where=_where(task),
        doing="" if working is None else str(working),
        seconds=None if working is None else time.perf_counter() - working.started,
        scopes=[scope for scope in _scopes(task, now) if str(scope)],
    )
    for nursery in task.child_nurseries:
        children = sorted(nursery.child_tasks, key=lambda child: child._counter)
        seen = [_node(child, counter, now) for child in children if next(counter) <= MOST_TASKS]
        node.nurseries.append(_folded(seen, len(children) - len(seen)))
    # Of all below only what was kept: once, on the way up, however deep the tree is.
    below = (tuple((child.key, child.alike) for child in children) for children in node.nurseries)
    node.key = (node.name, node.where, node.doing, *below)
    return node


def _folded(nodes: list[Node], unseen: int) -> list[Node]:
    """Keep the oldest of those that are alike."""
    kept: dict[tuple[Any, ...], Node] = {}
    for node in nodes:
        first = kept.setdefault(node.key, node)
        first.alike += first is not node
    rest = [Node(f"and {unseen} more that were not looked at", (), "", None, [])] if unseen else []
    return [*kept.values(), *rest]


def _where(task: trio.lowlevel.Task) -> tuple[str, ...]:
    """Return our own frames of the chain of awaits, and the innermost one whoever it belongs to."""
    try:
        chain = [(frame.f_code, line) for frame, line in task.iter_await_frames()]
    except TypeError:  # something awaits that Trio cannot see through
        return ("unknown",)
    if not chain:
        return ("running: this very step" if task is trio.lowlevel.current_task() else "has not begun, or is ending",)
    last = max((number for number, (code, _) in enumerate(chain) if _is_ours(code.co_filename)), default=-1)
    ours = [_place(code, line) for code, line in chain[: last + 1] if _is_ours(code.co_filename)]
    # What our last frame awaits is the name that people know: Event.wait, sleep; below it is plumbing.
    library = next((place for place in chain[last + 1 :] if place[0].co_name not in _PLUMBING), None)
    return (*ours, _place(*library)) if library else tuple(ours)


def _is_ours(filename: str) -> bool:
    return filename.startswith(_HERE) and "/.venv/" not in filename


def _place(code: Any, line: int) -> str:
    path = code.co_filename.removeprefix(_HERE).rpartition("/site-packages/")[2]
    return f"{path}:{line} {code.co_qualname}"


def _scopes(task: trio.lowlevel.Task, now: float) -> Iterator[Scope]:
    """Yield the scopes that the task has entered, the innermost first; those further out are its parents'."""
    status: Any = task._cancel_status
    outside = getattr(task.parent_nursery, "_cancel_status", None)
    while status is not None and status is not outside:
        scope = status._scope
        left = None if math.isinf(scope.deadline) else round(scope.deadline - now, 3)
        yield Scope(left, scope.shield, scope.cancel_called)
        status = status._parent


def _threads() -> list[tuple[str, str]]:
    """Return the threads that do something: not this one, those that watch, nor those that wait for work."""
    frames = sys._current_frames()
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    busy = [(thread.name, frames[thread.ident]) for thread in others if thread.ident in frames]
    return [(name, _innermost(frame)) for name, frame in busy if not name.startswith(_WATCHING) and not _idle(frame)]


def _idle(frame: Any) -> bool:
    """Return whether it is a thread of Trio's that waits for work: one that has some is named no differently."""
    return bool(frame.f_code.co_filename.endswith("trio/_core/_thread_cache.py"))


def _innermost(frame: Any) -> str:
    stack = [frame for frame, _ in traceback.walk_stack(frame)]
    chosen = next((frame for frame in stack if _is_ours(frame.f_code.co_filename)), stack[0])
    return _place(chosen.f_code, chosen.f_lineno)
