"""The terminal of `service dev`: left as it was found, and not outlived."""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator

import trio

LOOK = 1.0  # seconds


async def end_without_terminal() -> None:
    """End this process, as a shell does, when the terminal is gone that it writes to.

    Only the leader of the terminal's session hears of that for certain, and `make` says nothing to those that it runs.
    """
    if not sys.stdout.isatty():
        return
    terminal = select.poll()
    terminal.register(sys.stdout.fileno(), 0)  # nothing is asked for: that it is gone is told always
    while not terminal.poll(0):  # noqa: ASYNC110  a terminal has no event of Trio's that leaves its input alone
        await trio.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGHUP)


@contextlib.contextmanager
def tidy_terminal() -> Iterator[None]:
    """Leave the terminal as it was found: a child that is killed at a prompt leaves it without echo.

    In the background it is not touched: another has it by then, and the kernel stops whoever sets it (SIGTTOU).
    """
    if not sys.stdin.isatty():
        yield
        return
    import termios

    before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        if not _in_background():
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _in_background() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp()
    except OSError:  # it is gone, or not the terminal that our session has, which stops nobody
        return False
