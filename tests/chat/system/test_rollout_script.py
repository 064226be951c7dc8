"""The release gate's own client: what may be repeated it repeats, and tells; what may not be is a problem."""

import json
import sys
from functools import partial
from pathlib import Path

import trio

from service.platform.testing.processes import ready
from tests.chat import rollout


async def test_what_may_be_repeated_is_repeated_and_told(tmp_path: Path, database_url: str) -> None:
    """A busy service answers a send, or a join, with an error that says `retryable`."""
    stop = tmp_path / "stop"
    settings = {"rate_per_connection": 1, "rate_per_address": 0, "drain_delay": 0, "drain_spread": 0}
    async with ready(tmp_path, "serve", database_url=database_url, **settings) as replica:
        command = [sys.executable, rollout.__file__, replica.public, str(stop)]
        with (tmp_path / "said").open("w") as said, trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                script = await nursery.start(partial(trio.run_process, command, stdout=said, check=False))
                await trio.sleep(8)  # 6 of them of sending, as often as a busy machine can
                stop.touch()

    told = json.loads((tmp_path / "said").read_text())
    assert (script.returncode, told["problems"]) == (0, [])
    assert told["repeated rate_limited"] > 0
    assert told["acked"] > 4
    assert told["delivered"] == told["acked"] * rollout.MEMBERS
