"""The terminal of `service dev` is left as it was found, by one that it belongs to."""

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TIDY = """
import termios
from service.platform.reload.terminal import tidy_terminal
with tidy_terminal():
    modes = termios.tcgetattr(0)
    modes[3] &= ~termios.ECHO
    if {changes}:
        termios.tcsetattr(0, termios.TCSANOW, modes)
"""
# A shell, in whose terminal a job of its own group runs in the background, and then one in the foreground.
SHELL = """
import os, subprocess, sys, termios
os.close(os.open(os.ttyname(0), os.O_RDWR))
job = subprocess.Popen([sys.executable, "-c", sys.argv[1]], process_group=0)
_, background = os.waitpid(job.pid, os.WUNTRACED)
if os.WIFSTOPPED(background):
    job.kill()
foreground = subprocess.run([sys.executable, "-c", sys.argv[2]])
sys.exit(f"{background} {foreground.returncode} {bool(termios.tcgetattr(0)[3] & termios.ECHO)}")
"""


def test_a_terminal_is_set_back_and_in_the_background_nobody_is_stopped_by_it() -> None:
    """As `service dev &` is, and a `kill` of it: stopped in its last moment, it would never end."""
    controller, terminal = pty.openpty()
    jobs = [TIDY.format(changes=changes) for changes in (False, True)]
    done = subprocess.run(
        [sys.executable, "-c", SHELL, *jobs],
        stdin=terminal,
        capture_output=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
        timeout=60,
        check=False,
    )
    os.close(controller)
    os.close(terminal)

    assert done.stderr.decode().strip() == "0 0 True"
