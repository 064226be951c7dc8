"""Wall clocks that jump: of a worker, or of PostgreSQL, by libfaketime between a process and its system.

What runs under it reads the offset from a file, so a jump is a write. Monotonic clocks go on as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from service.platform.testing.own_server import OwnServer


def find_library() -> Path | None:
    """Return the library of the package libfaketime, which is there for Linux on x86-64 alone."""
    found = find_spec("libfaketime")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"


class Clock:
    """The wall clock of the processes that are started with `prefix`."""

    def __init__(self, offset: Path, library: Path) -> None:
        self._offset = offset
        self.jump(0)
        self.prefix = (
            "env",
            f"LD_PRELOAD={library}",
            f"FAKETIME_TIMESTAMP_FILE={offset}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        )

    def jump(self, seconds: int) -> None:
        """Be so many seconds ahead of the system from now on."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._offset)


@contextmanager
def given_clock(server: OwnServer, directory: Path, library: Path) -> Iterator[Clock]:
    """Start the server again under a clock of its own, and at the end under the system's."""
    clock = Clock(directory / "offset", library)
    bindir = directory / "bin"
    bindir.mkdir()
    for program in server.bindir.iterdir():
        (bindir / program.name).symlink_to(program)
    postgres = bindir / "postgres"
    postgres.unlink()
    postgres.write_text(f'#!/bin/sh\nexec {" ".join(clock.prefix)} {server.bindir / "postgres"} "$@"\n')
    postgres.chmod(0o755)
    usual, server.bindir = server.bindir, bindir
    server.restart()
    try:
        yield clock
    finally:
        server.bindir = usual
        server.restart()
