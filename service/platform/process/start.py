"""The first moment of the process: it is told to end before it is anything. Imports nothing that takes time."""

import gc
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

USUAL = gc.get_threshold()
# Looks at what has been there for a while for one at everything: that stops the event loop for 70 ms of each 1,000 open
# websockets, and what a connection leaves needs none (tests/platform/server/test_circles.py). Python's own is 10.
RARELY = 100
SELDOM = 400_000  # objects more than before, of those that may be in a cycle: twice what a start makes

# What libraries import by the way, and a service hardly ever uses.
SELDOM_USED = frozenset(
    {
        "aiofiles.tempfile",
        "asyncio.sslproto",
        "code",
        "email.header",
        "html",
        "logging.handlers",
        "pdb",
        "sqlalchemy.dialects.postgresql.asyncpg",
        "sqlalchemy.dialects.postgresql.pg8000",
        "sqlalchemy.dialects.postgresql.psycopg2",
        "sqlalchemy.dialects.postgresql.psycopg2cffi",
    }
)

_HTTP2 = "h2", "h2.events", "hypercorn.protocol.h2"

# A second signal sooner than this, in seconds, is the first one arriving twice: from the terminal and from a parent.
ECHO = 0.5

_over: list[bool] = []  # holds something once what the process is for has ended


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a process to end: SIGHUP, too, unless whoever started us wants that ignored (nohup).

    A terminal that goes sends it, and a supervisor that believes in it for daemons; its default kills.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if ignored else (signal.SIGHUP,)))


class Signalled(SystemExit):
    """A signal has asked for the end: what code that calls sys.exit is taken for must not hold it up."""


def end_at_signals() -> None:
    """End at those signals until main, which drains, listens to them.

    As PID 1 a signal that comes before its handler is lost. Nothing is open yet, so there is nothing to drain.
    """

    def end(number: int, _frame: object) -> None:
        if not _over:
            raise Signalled(128 + number)

    for number in ending_signals():
        signal.signal(number, end)
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)  # asked for the tasks too early: there are none
    signal.signal(signal.SIGUSR2, lambda _number, _frame: None)  # means nothing here, and its default is a kill
    # Whoever started us may wait for its own with these blocked, which is inherited: we would hear none before SIGKILL.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [*ending_signals(), signal.SIGUSR1])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # nor how a child of ours ended, where it is ignored: each would be 0


def end_at_no_more() -> None:
    """Let no signal that comes from now on change how the process ends: what is left is to close, in bounded time.

    Trio gives on to the handlers of before what nobody has read, out of its own loop: an exception there breaks it.
    """
    _over.append(True)


def widen_descriptors(needed: int) -> None:
    """Let the process have so many descriptors, as far as it may help itself: a login's limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def open_standard_streams() -> None:
    """Give what is written to a closed standard stream to nobody.

    Else a file or a socket opened later gets the stream's number, and a stray line of text with it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(opened, True)  # children have it as well
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  for as long as the process lives


class _AtFirstUse:
    """Finds the modules that are seldom used, and has each loaded when something of it is asked for."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in SELDOM_USED or (spec := PathFinder.find_spec(name, path, target)) is None or spec.loader is None:
            return None
        from importlib.util import LazyLoader

        spec.loader = LazyLoader(spec.loader)
        return spec


def import_at_first_use() -> None:
    """Import what is seldom used when it is used, by Python's own LazyLoader: 10 ms of a start."""
    sys.meta_path.insert(0, _AtFirstUse)


def absent(package: str) -> AbstractContextManager[None]:
    """Let a package count as not installed: one that a library imports if it is there, and nothing here needs of it."""
    return _replaced({package: None})  # an import of it fails: Python's own way


class _StandIn(ModuleType):
    """Of a module that is imported and not used: whatever is asked for is None."""

    def __getattr__(self, name: str) -> None:
        return None


def without_http2() -> AbstractContextManager[None]:
    """Let Hypercorn be imported without its HTTP/2, which is off here (README.md of server, A5): 27 ms of a start."""
    return _replaced({name: _StandIn(name) for name in _HTTP2})


@contextmanager
def _replaced(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Have these in place of modules that nobody has imported yet; whoever imports one later gets the real one."""
    if modules.keys() & sys.modules.keys():
        yield
        return
    sys.modules.update(modules)  # type: ignore[arg-type]  # None is what stands for none
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def collect_seldom() -> None:
    """Look for garbage when a start is long over: what is imported is none, and each look goes through all of it."""
    gc.set_threshold(SELDOM, *USUAL[1:])


def collect_as_usual() -> None:
    """Look for garbage as often as Python does, at everything more rarely; what is there now stays for good."""
    gc.freeze()
    gc.set_threshold(*USUAL[:2], RARELY)
