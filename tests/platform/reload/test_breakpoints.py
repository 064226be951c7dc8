"""No time passes from when a breakpoint wants the terminal: another process may be at its prompt."""

import os
import re
import subprocess
import sys

from service.platform.testing.processes import PATIENCE, ROOT

PROGRAM = """
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.platform.reload.breakpoints import breakpoints
from service.platform.reload.clock import StoppableClock

clock = StoppableClock()

@contextmanager
def terminal() -> Iterator[None]:
    before = clock.current_time()
    time.sleep(0.05)
    print("waited", clock.current_time() - before)
    yield

with breakpoints(clock, terminal):
    breakpoint()
    print("gone on")
"""


def test_no_time_passes_while_the_terminal_is_waited_for() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONBREAKPOINT"}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        input="where\nc\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    assert "waited 0.0\n" in ended.stdout
    assert re.search(r"> <string>\((19|20)\)<module>\(\)", ended.stdout)  # where the breakpoint is, or next to it
    assert ended.stdout.endswith("gone on\n")
