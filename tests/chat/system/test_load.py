"""`service load` as the judge, while replicas are killed and drained beneath it."""

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from service.platform.testing.processes import run_to_end
from tests.chat.system.balancer import Balancer, balancing
from tests.chat.system.cluster import Cluster, open_cluster

LOAD = ("--members", "40", "--writers", "10", "--rooms", "4", "--rate", "50", "--duration", "10", "--json")


def ports(cluster: Cluster) -> list[int]:
    found = [urlsplit(url).port for url in cluster.urls()]
    return [port for port in found if port is not None]


async def kill_one(cluster: Cluster, balancer: Balancer) -> None:
    await cluster.replicas[0].kill()
    balancer.ports = ports(cluster)
    await cluster.replicas[0].start()
    balancer.ports = ports(cluster)


async def roll_all(cluster: Cluster, balancer: Balancer) -> None:
    for replica in cluster.replicas:
        assert await replica.drain() == 0
        balancer.ports = ports(cluster)
        await replica.start()
        balancer.ports = ports(cluster)


@pytest.mark.drill
@pytest.mark.parametrize("fault", [kill_one, roll_all], ids=lambda fault: fault.__name__)
async def test_it_finds_every_guarantee_kept(
    tmp_path: Path, database_url: str, fault: Callable[[Cluster, Balancer], Awaitable[None]]
) -> None:
    reports: list[subprocess.CompletedProcess[str]] = []
    with trio.fail_after(90):
        async with (
            open_cluster(tmp_path, 2, database_url=database_url) as cluster,
            balancing(*ports(cluster)) as balancer,
        ):

            async def load() -> None:
                run = partial(run_to_end, tmp_path, "load", balancer.url, *LOAD)
                reports.append(await trio.to_thread.run_sync(run))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(load)
                await trio.sleep(4)
                await fault(cluster, balancer)
            assert cluster.complaints() == []
    (done,) = reports

    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert set(report["violations"].values()) == {0}
    assert report["reconnects"] > 0
