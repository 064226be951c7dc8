"""Where the clusters and files of a run lie: in memory where there is room. To copy a database takes a third there."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.platform.testing.kept import is_left

MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30  # bytes; those of one process of the suite take a tenth of it
PREFIX = "service_test_"  # of databases and directories, and behind it the process that they are of


@contextmanager
def directory_for_clusters(on_disk: Path) -> Iterator[Path]:
    """Yield an empty directory, in memory or else the one that is given; it is gone at the end.

    What a killed run has left in memory goes first.
    """
    place = _in_memory() or on_disk
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def directory_in_memory() -> Iterator[Path | None]:
    """Yield an empty directory in memory from which programs can be run, or None; it is gone at the end."""
    place = None if _bars_programs(MEMORY) else _in_memory()
    try:
        yield place
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def _bars_programs(place: Path) -> bool:
    barred = False
    if sys.platform == "linux":
        barred = place.exists() and bool(os.statvfs(place).f_flag & os.ST_NOEXEC)
    return barred


def _in_memory() -> Path | None:
    if not os.access(MEMORY, os.W_OK):
        return None
    for left in MEMORY.glob(f"{PREFIX}*"):
        if is_left(left.name, PREFIX) and not left.name.startswith(f"{PREFIX}{os.getpid()}_"):
            shutil.rmtree(left, ignore_errors=True)
    if shutil.disk_usage(MEMORY).free < ROOM:
        return None
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}_", dir=MEMORY))
