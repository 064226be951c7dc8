"""What `service dev` makes of files that it cannot watch."""

import importlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from service.platform.reload.parent import Parent
from service.platform.reload.watching import new_settings


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let nothing be opened, as where all the watchers are taken that the kernel has for a user: the same EMFILE.

    Not by the lowest number that is free: another may become free meanwhile, as when something is collected.
    """
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


async def collect(directory: Path) -> list[str]:
    """Return what the parent says of watching a directory, once it has given up."""
    told: list[str] = []
    parent = Parent([], directory, {}, tell=told.append, on_first=lambda _: None, coloured=False)
    with trio.fail_after(30):
        await parent._collect(new_settings(directory))
    return told


async def test_a_file_that_cannot_be_watched_is_told_and_ends_nothing(tmp_path: Path) -> None:
    [told] = await collect(tmp_path / "gone")

    assert told.startswith("  a save changes nothing: the files cannot be watched: No such file or directory")


async def test_a_watcher_that_cannot_be_had_is_told_and_ends_nothing(tmp_path: Path) -> None:
    importlib.import_module("watchfiles")  # while files can be opened
    with no_more_files():
        [told] = await collect(tmp_path)

    assert told.startswith("  a save changes nothing: the files cannot be watched: ")
    assert "Too many open files" in told
