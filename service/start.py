"""The first moment of the process: `service` and `python -m service` are told to end before they are anything."""

import signal
import sys


def run() -> None:
    """Be the command line; what the script `service` calls."""
    end_at_signals()
    from service.__main__ import run as run_command_line  # not above: it takes most of a second

    run_command_line()


def end_at_signals() -> None:
    """End at SIGTERM and SIGINT until main, which drains, listens to them.

    As PID 1 a signal that comes before its handler is lost. Nothing is open yet, so there is nothing to drain.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
