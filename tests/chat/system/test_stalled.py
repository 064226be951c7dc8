"""Members that stop reading: the others do not notice; they are let go, and come back complete."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx2
import pytest
import trio

from service.platform.testing.processes import ready
from tests.chat.system.audience import compare

UNLIMITED = {"rate_per_connection": 0, "rate_per_address": 0, "log_level": "warning"}


@dataclass(frozen=True)
class Crowd:
    members: int
    stalled: int
    pause: float
    pairs: int
    noise: float  # seconds below which it is the machine's; the bench says how it is


FEW, MANY = Crowd(24, 3, 0.006, 1, 2), Crowd(500, 50, 0.08, 2, 0.3)


@pytest.mark.parametrize("crowd", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.drill)])
async def test_who_does_not_read_delays_nobody_and_comes_back_complete(
    tmp_path: Path, database_url: str, crowd: Crowd
) -> None:
    with trio.fail_after(60 + crowd.members):
        async with ready(tmp_path, "serve", database_url=database_url, **UNLIMITED) as service:
            found = await compare(
                service.public, members=crowd.members, stalled=crowd.stalled, messages=300, pause=crowd.pause,
                pairs=crowd.pairs,
            )  # fmt: skip
            async with httpx2.AsyncClient() as client:
                metrics = (await client.get(f"{service.management}/metrics")).text.splitlines()

            assert f"chat_outbox_overflows_total {crowd.stalled * crowd.pairs:.1f}" in metrics
            for _, beside in found:
                assert beside.share == 1
                assert beside.let_go == beside.complete == crowd.stalled
            free, with_them = (median(each.usual_p99 for each in side) for side in zip(*found, strict=True))
            assert with_them < max(crowd.noise, 1.5 * free)
