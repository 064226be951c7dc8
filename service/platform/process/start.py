"""The first moment of the process: it is told to end before it is anything. Imports nothing that takes time."""

import signal
import sys


def end_at_signals() -> None:
    """End at SIGTERM and SIGINT until main, which drains, listens to them.

    As PID 1 a signal that comes before its handler is lost. Nothing is open yet, so there is nothing to drain.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
