"""`breakpoint()` in a service that runs: pdb, with the terminal to itself and no time passing meanwhile."""

import inspect
import os
import pdb  # noqa: T100  it is what this is about
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from service.platform.reload.clock import StoppableClock

type Terminal = Callable[[], AbstractContextManager[None]]


class Debugger(pdb.Pdb):
    """Pdb that asks for its turn before each prompt. Ctrl-C is not its own: that ends the service."""

    def __init__(self, turn: Terminal) -> None:
        super().__init__(nosigint=True)
        self._turn = turn

    def interaction(self, *args: Any, **kwargs: Any) -> None:
        with self._turn():
            super().interaction(*args, **kwargs)


@contextmanager
def breakpoints(clock: StoppableClock, terminal: Terminal) -> Iterator[None]:
    """Let `breakpoint()` open such a debugger inside this scope; whoever has set PYTHONBREAKPOINT gets theirs.

    `terminal` is entered around each prompt, and waits until nobody else is at one.
    """
    one_at_a_time = threading.Lock()  # units of work have threads of their own
    whose: int | None = None  # thread has it

    @contextmanager
    def turn() -> Iterator[None]:
        nonlocal whose
        if whose == threading.get_ident():  # a breakpoint in what `debug` runs at the prompt
            yield
            return
        with one_at_a_time, clock.stopped(), terminal():  # it may be a while until the terminal is free
            whose = threading.get_ident()
            try:
                yield
            finally:
                whose = None

    def stop_here(*_: Any, **__: Any) -> None:
        frame = inspect.currentframe()
        Debugger(turn).set_trace(frame and frame.f_back)

    if os.environ.get("PYTHONBREAKPOINT"):
        yield
        return
    before, sys.breakpointhook = sys.breakpointhook, stop_here
    try:
        yield
    finally:
        sys.breakpointhook = before
