"""Thousands of members on one process: what they cost while they are silent, and a storm of those who come back."""

import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from service.platform.testing.processes import FROM_NOTHING, ready
from tests.chat.system.crowd import come_back, open_many, resident_kib, write

UNLIMITED = {"rate_per_connection": 0, "rate_per_address": 0, "max_websockets": 20_000, "log_level": "warning"}
MISSED = 20
MOST_KIB = 64  # of one idle member; about 25 are seen


@pytest.mark.drill
async def test_a_storm_of_resumes_is_served_and_ends(tmp_path: Path, database_url: str) -> None:
    """The replica is killed under its members; all come back in the moment in which it is there again."""
    members = 2_000
    with trio.fail_after(300):
        async with AsyncExitStack() as stack:
            async with ready(tmp_path, "serve", name="one", database_url=database_url, **UNLIMITED) as service:
                joined = await (await open_many(stack, service.public, members))[0].expect("joined")
                service.process.kill()
            async with ready(tmp_path, "serve", name="two", database_url=database_url, **UNLIMITED) as service:
                await write(service.public, MISSED)
                since = {"epoch": joined["epoch"], "seq": joined["from"]}
                returns = await come_back(service, members=members, since=since, missed=MISSED)

    sys.stdout.write(f"{members} resumes: over in {returns.seconds:.1f} s, {dict(returns.answers)}\n")
    assert returns.answers["complete"] == members
    assert set(returns.answers) <= {"complete", "503 announced"}


@pytest.mark.drill
async def test_what_ten_thousand_silent_members_cost_is_bounded(tmp_path: Path, database_url: str) -> None:
    members = 10_000
    with trio.fail_after(300):
        async with (
            ready(tmp_path, "serve", command=FROM_NOTHING, database_url=database_url, **UNLIMITED) as service,
            AsyncExitStack() as stack,
        ):
            before = resident_kib(service.process.pid)
            await open_many(stack, service.public, members)
            await trio.sleep(5)
            each = (resident_kib(service.process.pid) - before) / members

    sys.stdout.write(f"{members} silent members: {each:.1f} KiB each\n")
    assert each < MOST_KIB
