"""What one request, or one message, really passes: the service's own functions, in the order in which each began."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

import trio

ROOT = Path(__file__).parents[2]
SERVICE, FEATURES = str(ROOT / "service"), str(ROOT / "tests" / "platform" / "features.py")
TOOL = sys.monitoring.PROFILER_ID


class Newcomers(trio.abc.Instrument):
    """Notes the connections that are accepted while it is there, each by its first task."""

    def __init__(self) -> None:
        self._connections: set[trio.lowlevel.Task] = set()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.name == "trio._highlevel_serve_listeners._run_handler":
            self._connections.add(task)

    def include(self, task: trio.lowlevel.Task | None) -> bool:
        """Return whether a task serves one of these connections."""
        while task is not None and task not in self._connections:
            task = task.parent_nursery.parent_task if task.parent_nursery else None
        return task is not None


@contextmanager
def newcomers() -> Iterator[Newcomers]:
    found = Newcomers()
    trio.lowlevel.add_instrument(found)
    try:
        yield found
    finally:
        trio.lowlevel.remove_instrument(found)


class _Recorder:
    """What is told of each function that begins; on a thread, and where it hands back, only those of a unit of ours."""

    def __init__(self, counts: Callable[[trio.lowlevel.Task], bool]) -> None:
        self.path: list[str] = []
        self._counts = counts
        self._loop = threading.get_ident()
        self._units: list[object] = []

    def started(self, code: CodeType, _: int) -> object:
        if not code.co_filename.startswith((SERVICE, FEATURES)) or "<" in code.co_qualname.rpartition(".")[2]:
            return sys.monitoring.DISABLE
        if self._is_counted():
            if code.co_qualname == "Unit.run":
                self._units.append(sys._getframe(1).f_locals["self"])
            name = f"{_file(code)} {code.co_qualname.replace('<locals>.', '')}"
            if name not in self.path:
                self.path.append(name)
        return None

    def _is_counted(self) -> bool:
        if threading.get_ident() != self._loop:
            return self._is_for_a_unit()
        try:
            task = trio.lowlevel.current_task()
        except RuntimeError:  # Trio itself, between two tasks
            return False
        return self._is_for_a_unit() if "EntryQueue" in task.name else self._counts(task)

    def _is_for_a_unit(self) -> bool:
        values = (frame.f_locals.get(name) for frame in _frames() for name in ("self", "unit"))
        return any(value is unit for value in values for unit in self._units)


def _frames() -> Iterator[FrameType]:
    """Yield what is being run on this thread, the innermost first, and nothing of this module."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back


@contextmanager
def recorded(counts: Callable[[trio.lowlevel.Task], bool]) -> Iterator[list[str]]:
    """Yield a list that fills with `file function`, each once: of tasks that count, and of threads they wait for."""
    recorder = _Recorder(counts)
    sys.monitoring.use_tool_id(TOOL, "path")
    sys.monitoring.register_callback(TOOL, sys.monitoring.events.PY_START, recorder.started)
    sys.monitoring.set_events(TOOL, sys.monitoring.events.PY_START)
    try:
        yield recorder.path
    finally:
        sys.monitoring.set_events(TOOL, 0)
        sys.monitoring.register_callback(TOOL, sys.monitoring.events.PY_START, None)
        sys.monitoring.free_tool_id(TOOL)
        sys.monitoring.restart_events()


def _file(code: CodeType) -> str:
    if code.co_filename == FEATURES:
        return "(a feature)"
    return str(Path(code.co_filename).relative_to(SERVICE)).removeprefix("platform/")


def beneath(name: str) -> bool:
    """Return whether a function of this qualified name is among those that are being run here."""
    return any(frame.f_code.co_qualname == name for frame in _frames())


def usual(paths: list[list[str]]) -> list[str]:
    """Return what is in most of several paths: the rest belongs to the moment, as when a connection is replaced."""
    most = {name for path in paths for name in path if 2 * sum(name in other for other in paths) > len(paths)}
    nearest = min(paths, key=lambda path: len(most.symmetric_difference(path)))
    return [name for name in nearest if name in most]


def check_document(document: Path, path: list[str]) -> None:
    """Hold a document to a path: it has the files in order, each with its first function, and about how many there are.

    Helpers come and go, so the number of functions may be a tenth off.
    """
    first: dict[str, str] = {}
    for name in path:
        file, _, function = name.rpartition(" ")
        first.setdefault(file, function)
    rows = [f"| {number} | {file} | `{function}` |" for number, (file, function) in enumerate(first.items(), start=1)]
    wanted = "\n".join(
        [f" functions in {len(rows)} files:", "", "| | file | comes in by |", "|---|---|---|", *rows, ""]
    )
    text = document.read_text()
    assert wanted in text, f"{document} must hold: About {len(path)}{wanted}"
    told = int(text.partition(wanted)[0].rpartition("bout ")[2])
    assert abs(told - len(path)) <= len(path) / 10, f"about {len(path)} functions and not {told}"
