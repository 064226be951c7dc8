"""The first moment of the process: it is told to end before it is anything. Imports nothing that takes time."""

import os
import signal
import sys

# A second signal sooner than this, in seconds, is the first one arriving twice: from the terminal and from a parent.
ECHO = 0.5


def end_at_signals() -> None:
    """End at SIGTERM and SIGINT until main, which drains, listens to them.

    As PID 1 a signal that comes before its handler is lost. Nothing is open yet, so there is nothing to drain.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


def open_standard_streams() -> None:
    """Give what is written to a closed standard stream to nobody.

    Else a file or a socket opened later gets the stream's number, and a stray line of text with it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  for as long as the process lives
