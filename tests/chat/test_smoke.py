"""`service smoke`: what one replica was told comes out of the other, or the verb ends with 1."""

from pathlib import Path

import pytest
import trio

from service.chat import CHAT
from service.platform.client.smoke import SmokeError, smoke
from service.platform.testing.processes import ready, run_to_end
from tests.helm.test_smoke import BOTH, QUICK, told_by_smoke, two_addresses


async def test_tells_of_each_replica_and_of_each_crossing(tmp_path: Path, database_url: str) -> None:
    async with (
        ready(tmp_path, "serve", name="one", database_url=database_url, **QUICK) as one,
        ready(tmp_path, "serve", name="two", database_url=database_url, **QUICK) as two,
    ):
        urls = sorted([one.public, two.public])
        done = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, "smoke", *urls))

    first, second = (url.removeprefix("http://") for url in urls)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"ok    {first} answers /livez /readyz /healthz /openapi.json",
        f"ok    {second} answers /livez /readyz /healthz /openapi.json",
        f"ok    a message sent to {first} came out of {second}",
        f"ok    a message sent to {second} came out of {first}",
    ]
    assert done.returncode == 0


async def test_a_replica_that_refuses_the_message_is_found(tmp_path: Path, database_url: str) -> None:
    # A burst is two seconds of this rate: not enough for the four websockets and two messages of a smoke test.
    async with ready(tmp_path, "serve", database_url=database_url, **BOTH, rate_per_address=1) as replica:
        urls = two_addresses(replica)
        assert len(await told_by_smoke(urls)) == 2
        with trio.fail_after(30), pytest.raises(SmokeError, match=r"rate_limited|refused with status 429"):
            async for _ in smoke(urls, replicas=2, checks=[str(CHAT.smoke)]):
                pass
