"""The last moment of the process: all is closed, and nothing else is waited for. Imports nothing that takes time.

The interpreter's own end takes down every module, waits for threads that nobody ended, and turns an exit code into 120
when the last words cannot be written: on a full disk, or when nobody reads them any more. Meanwhile nothing answers.
"""

import _thread  # threading.Thread waits without a bound for a thread that has no memory for its first step
import atexit
import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

# Seconds for what libraries have registered to be done at exit, such as a last report; a hanging one is left behind.
LAST_WISHES = 1.0
CRASHED = 1  # the exit code for an exception, or for a message in place of a code


@contextmanager
def ending() -> Iterator[None]:
    """Leave the process when this scope is over: with 0, or as `sys.exit` in it was called."""
    code: str | int | None = 0
    try:
        yield
    except SystemExit as asked:
        code = asked.code
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            code = f"the output cannot be written: {error.strerror}"
        else:
            sys.excepthook(*sys.exc_info())
            code = CRASHED
    if isinstance(code, str):
        with suppress(OSError, ValueError):
            print(code, file=sys.stderr)  # noqa: T201  as the interpreter does
        code = CRASHED
    leave(code or 0)


def leave(code: int) -> NoReturn:
    """End the process now with this code, whether or not its last words can be written."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what was done is done: a late repeat does not change the code
    fulfilled = _thread.allocate_lock()
    fulfilled.acquire()
    with suppress(RuntimeError, MemoryError):  # no thread to be had: a limit of processes, or of memory
        _thread.start_new_thread(_fulfil_wishes, (fulfilled,))
        fulfilled.acquire(timeout=LAST_WISHES)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, full or closed
            stream.flush()
    os._exit(code)


def _fulfil_wishes(fulfilled: _thread.LockType) -> None:
    atexit._run_exitfuncs()
    fulfilled.release()
