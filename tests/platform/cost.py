"""What something costs, told by no clock: the lines of Python that are run for it, by module.

Lines are the same on a fast machine and a slow one, and nearly the same each time. What else the process does meanwhile
comes on top, so of several times the least counts.
"""

import json
import os
import sys
import sysconfig
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[2]
TOOL = sys.monitoring.OPTIMIZER_ID
TIMES = 15
QUIET = 0.004  # seconds in which nothing is run any more
TOLERANCE = 0.03
LINES = 5  # more that are no growth, where few are run
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
WRITE = "TEST_COSTS"  # set to `write` it replaces the figures by those that are found

type Cost = Mapping[str, int]  # lines by module of ours, and by package of others


class Lines:
    """Counts by file; the tests' own are free."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.total = 0

    def ran(self, code: CodeType, _: int) -> object:
        if code.co_filename.startswith(TESTS):
            return sys.monitoring.DISABLE
        self.counts[code.co_filename] += 1
        self.total += 1
        return None


TESTS = str(ROOT / "tests")
PACKAGES = sysconfig.get_path("purelib")


@contextmanager
def counted() -> Iterator[Lines]:
    """Yield the lines of all threads, which are counted until the end of the block."""
    lines = Lines()
    sys.monitoring.use_tool_id(TOOL, "cost")
    sys.monitoring.register_callback(TOOL, sys.monitoring.events.LINE, lines.ran)
    sys.monitoring.set_events(TOOL, sys.monitoring.events.LINE)
    try:
        yield lines
    finally:
        sys.monitoring.set_events(TOOL, 0)
        sys.monitoring.register_callback(TOOL, sys.monitoring.events.LINE, None)
        sys.monitoring.free_tool_id(TOOL)


def least(act: Callable[[], None]) -> Cost:
    """Return what `act` costs on a thread of its own, what follows from it included, the least of TIMES."""
    found: list[Lines] = []
    for _ in range(TIMES + 5):
        with counted() as lines:
            act()
            settle(lines)
        found.append(lines)
    cheapest = min(found[5:], key=lambda lines: lines.total)  # the first ones fill caches
    names: Counter[str] = Counter()
    for file, number in cheapest.counts.items():
        names[_module(file)] += number
    return dict(sorted(names.items()))


def settle(lines: Lines) -> None:
    """Wait until nothing more is run."""
    before = -1
    while (now := lines.total) != before:
        before = now
        time.sleep(QUIET)


def _module(file: str) -> str:
    if file.startswith(str(ROOT / "service")):
        return ".".join(Path(file).relative_to(ROOT).with_suffix("").parts)
    inside = file.removeprefix(f"{PACKAGES}/")
    return inside.partition("/")[0] if inside != file else "python"


def grown(before: Cost, now: Cost) -> list[str]:
    """Return a line for ours and one for what others run for us if that is more than it was, with the modules."""
    said = []
    for whose, ours in (("the service", True), ("packages", False)):
        was, is_now = (
            sum(n for name, n in cost.items() if name.startswith("service") is ours) for cost in (before, now)
        )
        if is_now > was * (1 + TOLERANCE) + LINES:
            more = {name: now.get(name, 0) - before.get(name, 0) for name in before.keys() | now.keys()}
            named = sorted(
                ((name, n) for name, n in more.items() if n > 0 and name.startswith("service") is ours),
                key=lambda pair: -pair[1],
            )
            said.append(f"{whose}: {was} lines to {is_now}: " + ", ".join(f"{name} +{n}" for name, n in named))
    return said


def check(file: Path, name: str, now: Cost) -> None:
    """Fail when `name` costs more than the figures in a file say; with TEST_COSTS=write put them there instead."""
    known: dict[str, dict[str, Cost]] = json.loads(file.read_text()) if file.exists() else {}
    if os.environ.get(WRITE) == "write":
        known.setdefault(VERSION, {})[name] = now
        file.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    if VERSION not in known:
        pytest.skip(f"the figures are those of Python {', '.join(known)}")
    assert grown(known[VERSION][name], now) == [], (
        f"{name} costs more; if that is meant: {WRITE}=write pytest, and commit"
    )
