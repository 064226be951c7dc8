"""The release gate's own client: what may be repeated it repeats, and tells; what may not be is a problem."""

import json
import subprocess
import sys
from pathlib import Path

import trio

from service.platform.testing.processes import ready
from tests.chat import rollout


async def test_what_may_be_repeated_is_repeated_and_told(tmp_path: Path, database_url: str) -> None:
    """A busy service answers a send, or a join, with an error that says `retryable`."""
    stop = tmp_path / "stop"
    settings = {"rate_per_connection": 2, "rate_per_address": 0, "drain_delay": 0, "drain_spread": 0}
    async with ready(tmp_path, "serve", database_url=database_url, **settings) as replica:
        with (tmp_path / "said").open("w") as said:
            script = subprocess.Popen([sys.executable, rollout.__file__, replica.public, str(stop)], stdout=said)
        with trio.fail_after(60):
            await trio.sleep(6)
            stop.touch()
            while script.poll() is None:
                await trio.sleep(0.1)

    told = json.loads((tmp_path / "said").read_text())
    assert (script.returncode, told["problems"]) == (0, [])
    assert told["repeated rate_limited"] > 0
    assert told["acked"] > 4
    assert told["delivered"] == told["acked"] * rollout.MEMBERS
