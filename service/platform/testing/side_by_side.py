"""The suite in several processes, which is how `make test` runs it: `-n auto --dist loadfile --no-loadscope-reorder`.

A file's tests stay together, for they share what is dear. What takes long is begun first, so that nobody waits for one
process at the end. Most tests wait rather than compute: there are two processes more than there are CPUs.
"""

import os
import signal
from contextlib import ExitStack

import pytest

from service.platform.process.start import collect_as_usual, collect_seldom
from service.platform.testing.throwaway import directory_in_memory

collect_seldom()  # as early as there is anything of ours, and until all is collected

# Files and folders by name, those that take longest first; all others follow in the order in which they were found.
BEGUN_FIRST = (
    "test_removal.py",
    "test_rooms.py",
    "test_whole_life.py",
    "test_style.py",
    "test_process.py",
    "test_add_a_feature.py",
    "clone",
    "test_migrations.py",
    "system",
    "browser",
    "test_contract.py",
    "test_processes.py",
    "test_kept.py",
    "test_evolve_a_table.py",
    "identity",
    "test_glance.py",
    "test_checker.py",
    "verbs",
    "test_embedded.py",
    "test_observability.py",
    "test_http.py",
    "test_deploy.py",
    "test_smoke.py",
    "test_listen.py",
    "test_faults.py",
    "test_writes.py",
    "test_barrier.py",
    "test_memory.py",
    "test_values.py",
)

_until_the_end = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Let what is started here hear Ctrl-C: a shell that runs `make test` in the background has it ignored by all.

    And let the directories of tests lie in memory, if they run side by side: to copy the repository, a thousand files,
    takes a tenth of the processor time there. Of a file that is run by itself they are on the disk, to be looked at.
    """
    if config.getoption("numprocesses", None) and not config.getoption("basetemp"):
        place = _until_the_end.enter_context(directory_in_memory())
        if place is not None:
            config.option.basetemp = str(place / "t")  # short: the name of a socket in it may have 107 bytes
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_unconfigure() -> None:
    _until_the_end.close()


def pytest_xdist_auto_num_workers() -> int:
    return (os.process_cpu_count() or 1) + 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_turn)


def pytest_collection_finish() -> None:
    """Look no more for garbage in what was collected, which stays: some thousand tests and all that they import."""
    collect_as_usual()


def _turn(item: pytest.Item) -> int:
    parts = item.path.parts
    return next((turn for turn, name in enumerate(BEGUN_FIRST) if name in parts), len(BEGUN_FIRST))
