"""A process that may start no thread: units are refused and may come again, and nothing of it ends the process."""

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
