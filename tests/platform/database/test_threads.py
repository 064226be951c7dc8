"""A process that may start no thread, or hears of none any more: nothing of the first ends it, and the second does."""

import sys
from pathlib import Path

from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import run_to_end

# Each thread wants 8 MiB of addresses for its stack, and so there is room for none.
PROGRAM = """
import resource
import trio
from service.platform.database import open_database
from service.platform.database.wire import ConnectFailed, connect
from service.platform.errors import Busy
from service.platform.settings import Catalogue, PlatformSettings
from tests.platform.database.units import select_one

def limit(most):
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

async def main():
    settings, _ = Catalogue(PlatformSettings).load()
    async with open_database(settings) as database:
        await database.look()
        with open("/proc/self/statm") as sizes:
            limit(int(sizes.read().split()[0]) * resource.getpagesize() + (4 << 20))
        try:
            await database.run(select_one)
        except Busy as busy:
            print(busy)
        try:
            await connect({"host": "localhost"})
        except ConnectFailed as error:
            print(error)
        limit(resource.RLIM_INFINITY)
        print(await database.run(select_one))

trio.run(main)
"""


def test_what_finds_no_thread_may_come_again(one_server: OwnServer, tmp_path: Path) -> None:
    done = run_to_end(tmp_path, command=(sys.executable, "-c", PROGRAM), database_url=one_server.tcp_url)

    assert [line for line in done.stdout.splitlines() if "[" not in line] == [
        "no thread can be started for this unit; nothing was sent",
        "no thread can be started to look localhost up",
        "1",
    ], done.stderr


# Trio's own task, by which threads and signals reach the loop, fails as it does where memory ends in the middle of it.
DEAF = """
import trio
from service.platform.database import open_database
from service.platform.settings import Catalogue, PlatformSettings
from tests.platform.database.units import sleep

async def main():
    settings, _ = Catalogue(PlatformSettings).load()
    async with open_database(settings) as database, trio.open_nursery() as nursery:
        nursery.start_soon(database.run, sleep, 3600)
        while not database.in_flight():
            await trio.sleep(0.01)
        trio.lowlevel.notify_closing(trio.lowlevel.current_trio_token()._reentry_queue.wakeup.wakeup_sock)

trio.run(main)
"""


def test_a_loop_that_hears_of_no_thread_any_more_ends_while_a_unit_runs(one_server: OwnServer, tmp_path: Path) -> None:
    """It waited for that unit's thread for ever, with its listeners closed and deaf to SIGTERM."""
    done = run_to_end(tmp_path, command=(sys.executable, "-c", DEAF), database_url=one_server.tcp_url)

    assert (done.returncode, "TrioInternalError" in done.stderr) == (1, True), done.stderr
