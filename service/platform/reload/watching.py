"""Which saves count: of the service's files, its migrations and `.env`, and not what editors leave beside them."""

import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from service.platform.errors import leaves

if TYPE_CHECKING:
    from watchfiles import Change

PACKAGE = "watchfiles"
NO_RELOAD = f"a save changes nothing: the package {PACKAGE} is not installed (`make run` installs it)"
# Milliseconds: a save counts once nothing was written for STEP; it ends the wait for more in any case after MOST.
STEP, MOST = 50, 1000
LOOK = 100  # milliseconds after which the thread that watches looks whether it is to end

# What it says of a name that is no UTF-8, and then watches no more.
UNREADABLE = "Unable to decode path"

FOLDERS = ("service", "migrations")
SETTINGS = ".env"
WORDS = (".md", ".tmp")  # no code, and no page


def can_watch() -> bool:
    return importlib.util.find_spec(PACKAGE) is not None


async def saves(root: Path) -> AsyncIterator[set[Path]]:
    """Yield the files of one's own that were saved, made or removed together."""
    from watchfiles import DefaultFilter

    usual = DefaultFilter()

    def counts(change: "Change", name: str) -> bool:
        return usual(change, name) and not name.endswith(WORDS)

    folders = [root / folder for folder in FOLDERS if (root / folder).is_dir()]
    async for files in _watch(folders, counts, recursive=True):
        yield files


async def new_settings(directory: Path) -> AsyncIterator[set[Path]]:
    """Yield the file of settings each time that it was written."""
    async for files in _watch([directory], lambda _, name: Path(name).name == SETTINGS, recursive=False):
        yield files


async def _watch(
    paths: list[Path], counts: "Callable[[Change, str], bool]", *, recursive: bool
) -> AsyncIterator[set[Path]]:
    from watchfiles import awatch

    while True:
        try:
            async for changes in awatch(
                *paths, watch_filter=counts, step=STEP, debounce=MOST, rust_timeout=LOOK, recursive=recursive
            ):
                yield {Path(name) for _, name in changes}
        except* Exception as group:
            if not all(UNREADABLE in str(error) for error in leaves(group)):
                raise
        else:
            return
        yield set(paths)  # it has told nothing of what was saved with it
