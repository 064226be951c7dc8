"""The first moments of a child: it ends with its parent, and loads what others wrote before its turn has come.

A child may be started ahead of the save that it is for. What it has loaded until then is not the service's own code, as
that is what changes: only this module and the packages above it, which hold next to nothing.
"""

import ctypes
import os
import runpy
import signal
import sys
from contextlib import suppress
from importlib import import_module

from service.platform.reload.channel import Channel

UNDER, TAKES_OVER = "--under", "--takes-over"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(descriptor: int, parent: int, arguments: list[str]) -> None:
    """Be `service ARGUMENTS` once the parent says so; end at once when there is nobody to say it."""
    end_with(parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: os._exit(128 + number))
    os.set_inheritable(descriptor, False)  # what the service starts is no child of the loop
    channel = Channel(os.dup(descriptor))
    with suppress(EOFError):
        message, _ = channel.receive()
        for name in message.get("load", ()):
            with suppress(Exception):  # a module that is gone by now, or wants to be loaded by another one
                import_module(name)
        if "load" in message:
            message, _ = channel.receive()
        sys.argv = ["service", *arguments, UNDER, str(descriptor), *([TAKES_OVER] if message["takes_over"] else [])]
        runpy.run_module(__name__.partition(".")[0], run_name="__main__")


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel knew
