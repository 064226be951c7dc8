"""A rolling restart under load: no request fails, nothing is lost or doubled, all are told when to come back."""

import sys
from collections import Counter
from pathlib import Path

import httpx2
import trio

from service.platform.http.conversations import RESTART
from tests.chat.system.checker import Acked
from tests.chat.system.cluster import NOTICE, open_cluster
from tests.chat.system.storm import ROOMS, Storm

MEMBERS, WRITERS, CALLERS = 200, 6, 4


async def call(storm: Storm, number: int, answers: Counter[str]) -> None:
    """Read and post by HTTP, one request after the other, through what a load balancer would choose."""
    async with httpx2.AsyncClient(timeout=10) as client:
        sent = 0
        while True:
            sent += 1
            room, id_, text = storm.random.choice(ROOMS), f"http{number}-{sent}", f"by http {sent}"
            url = f"{storm.random.choice(storm.cluster.urls())}/api/rooms/{room}/messages"
            storm.history.sent[room, id_] = text
            try:
                posted = await client.post(url, json={"text": text, "id": id_})
                answers[str(posted.status_code)] += 1
                if posted.is_success:
                    ack = posted.json()
                    storm.history.acks.append(Acked(room, id_, ack["epoch"], ack["seq"], ack["dup"]))
                answers[str((await client.get(url)).status_code)] += 1
            except httpx2.HTTPError as error:
                answers[repr(error)] += 1
            await trio.sleep(0.1)


async def test_a_rolling_restart_loses_nothing_and_nobody(tmp_path: Path, database_url: str) -> None:
    with trio.fail_after(120):
        # A busy machine tells the balancer late as well: a replica stays for four seconds after it was asked to go.
        async with open_cluster(
            tmp_path, 2, database_url=database_url, drain_spread=1.5, drain_delay=20 * NOTICE
        ) as cluster:
            storm = Storm(cluster, seed=3)
            storm.add_members(MEMBERS, writers=WRITERS, pause=0.5)
            answers: Counter[str] = Counter()

            async def roll(storm: Storm) -> None:
                async with trio.open_nursery() as nursery:
                    for number in range(CALLERS):
                        nursery.start_soon(call, storm, number, answers)
                    await trio.sleep(2)
                    for replica in cluster.replicas:
                        assert await replica.drain() == 0
                        await replica.start()
                    nursery.cancel_scope.cancel()

            await storm.rage(roll)
            returns = sorted(after for member in storm.members for after, _ in member.returned)
            back = f"nine of ten back after {returns[len(returns) * 9 // 10]:.1f} s"
            sys.stdout.write(f"{storm.summary()}; HTTP {dict(answers)}; {back}\n")

            assert set(answers) == {"200", "201"}
            assert storm.reckoning() == []
            closes = sum((member.closes for member in storm.members), Counter[int]())
            assert set(closes) == {1012}
            assert closes[1012] == sum(len(member.byes) for member in storm.members) >= MEMBERS
            assert all(member.byes for member in storm.members)
            told = {tuple(bye["reconnect_after_ms"]) for member in storm.members for bye in member.byes}
            assert told == {RESTART.reconnect_after}
            assert len(returns) == closes[1012]
            assert returns[0] >= RESTART.reconnect_after[0] / 1000
            assert not [status for member in storm.members for status in member.refusals]
