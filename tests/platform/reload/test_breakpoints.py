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


INSIDE = """
from contextlib import nullcontext

from service.platform.reload.breakpoints import breakpoints
from service.platform.reload.clock import StoppableClock

def count():
    breakpoint()

with breakpoints(StoppableClock(), nullcontext):
    breakpoint()
    print("gone on")
"""


def run(program: str, words: str) -> str:
    """Return what a program says at whose prompts these words are typed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONBREAKPOINT"}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=ROOT, env=environment, input=words, capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout


def test_what_is_debugged_at_a_prompt_may_have_a_breakpoint_itself() -> None:
    said = run(INSIDE, "debug count()\nc\nc\nc\nc\n")

    assert "ENTERING RECURSIVE DEBUGGER" in said
    assert "gone on" in said


def test_no_time_passes_while_the_terminal_is_waited_for() -> None:
    said = run(PROGRAM, "where\nc\n")

    assert "waited 0.0\n" in said
    assert re.search(r"> <string>\((19|20)\)<module>\(\)", said)  # where the breakpoint is, or next to it
    assert said.endswith("gone on\n")
