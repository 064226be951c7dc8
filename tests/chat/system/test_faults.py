"""Nothing acked is lost, whatever is done to the replicas, to PostgreSQL and the line to it: seeded runs, checked."""

import signal
import socket
import struct
import sys
from pathlib import Path

import psycopg
import pytest
import trio
from sqlalchemy import make_url

from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from tests.chat.system.black_hole import open_black_hole
from tests.chat.system.clients import SILENT
from tests.chat.system.cluster import open_cluster
from tests.chat.system.conditions import PASSWORD, TABLES, World
from tests.chat.system.storm import Storm
from tests.platform.database.proxy import Proxy, open_proxy

LIMIT = 170  # seconds


class Faults:
    """What can be done to a cluster, each while members write."""

    def __init__(self, world: World, proxy: Proxy) -> None:
        self.world = world
        self.server = world.server
        self.proxy = proxy

    async def kill_a_replica(self, storm: Storm) -> None:
        replica = storm.random.choice(storm.cluster.replicas)
        await replica.kill()
        await replica.start()

    async def roll(self, storm: Storm) -> None:
        for replica in storm.cluster.replicas:
            assert await replica.drain() == 0
            await replica.start()

    async def freeze_a_replica(self, storm: Storm, seconds: float = 5) -> None:
        process = storm.random.choice(storm.cluster.replicas).process
        assert process is not None
        process.send(signal.SIGSTOP)
        await trio.sleep(seconds)
        process.send(signal.SIGCONT)

    async def kill_the_listeners(self, _: Storm) -> None:
        for _again in range(3):
            self._terminate_listeners()
            await trio.sleep(0.3)

    async def restart_postgres_fast(self, _: Storm) -> None:
        self.server.restart("fast")  # in this thread: the server dies with the one that started it

    async def restart_postgres_hard(self, _: Storm) -> None:
        self.server.restart("immediate")

    async def lock_the_tables(self, _: Storm, seconds: float = 20) -> None:
        await trio.to_thread.run_sync(self.world.lock)  # it waits for who passes the proxy, which is in this loop
        await trio.sleep(seconds)
        self.world.unlock()

    async def take_a_table_away(self, _: Storm, seconds: float = 5) -> None:
        await self._for_a_while(seconds, "ALTER TABLE chat_room RENAME TO away", "ALTER TABLE away RENAME TO chat_room")

    async def take_a_table_away_for_a_moment(self, storm: Storm) -> None:
        await self.take_a_table_away(storm, 1)

    async def take_the_rights(self, _: Storm, seconds: float = 5) -> None:
        await self._for_a_while(seconds, f"REVOKE ALL ON {TABLES} FROM app", f"GRANT ALL ON {TABLES} TO app")

    async def be_a_standby(self, _: Storm, seconds: float = 10) -> None:
        self.server.become_standby()
        await trio.sleep(seconds)
        self.server.promote()

    async def _for_a_while(self, seconds: float, begin: str, end: str) -> None:
        await trio.to_thread.run_sync(self.world.execute, begin)  # as above
        await trio.sleep(seconds)
        await trio.to_thread.run_sync(self.world.execute, end)

    async def cut_commits(self, _: Storm) -> None:
        for _again in range(5):
            self.proxy.break_at(b"COMMIT\0", forward=True)  # it is done, and nobody is told
            await trio.sleep(0.2)
        assert self.proxy.broken

    async def bad_clients(self, storm: Storm) -> None:
        """Peers that reset, stall, or vanish without a word, beside the good ones; some of the good do so as well."""
        stalling = storm.random.sample(storm.members, 3)
        for member in stalling:
            member.stalled = True
        for member in storm.random.sample(storm.members, 3):
            member.reset()
        sockets = [await trio.to_thread.run_sync(join_raw, url) for url in storm.cluster.urls() for _ in range(5)]
        await trio.sleep(1)
        for line in sockets[::2]:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.close()
        for member in stalling:
            member.stalled = False
        await trio.sleep(0.5)
        for line in sockets[1::2]:
            line.close()

    async def lines_go_dead(self, storm: Storm) -> None:
        """Members come by lines on which everything vanishes, without an end, while they and the replica talk."""
        async with open_black_hole(storm.random.choice(storm.cluster.urls())) as hole:
            for member in storm.random.sample(storm.members, 4):
                member.detour = hole.url
                member.reset()
            while hole.lines < 4:
                await trio.sleep(0.05)
            await trio.sleep(0.5)
            hole.swallow()
            await trio.sleep(0.3)
            for member in storm.members:
                member.detour = None
            await trio.sleep(SILENT + 0.5)

    def _terminate_listeners(self) -> None:
        with psycopg.connect(self.server.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")


def join_raw(url: str) -> socket.socket:
    """Join a busy room and then never read: a peer that is gone, or does not care."""
    address = make_url(url)
    line = socket.create_connection((address.host, address.port), timeout=5)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.sendall(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat.v1\r\n\r\n"
    )
    line.recv(4096)
    frame = b'{"type":"join","room":"one","ref":"r","since":{"seq":0}}'
    line.sendall(bytes((0x81, 0x80 | len(frame))) + b"\0\0\0\0" + frame)
    return line


FAULTS = (
    "kill_a_replica", "roll", "freeze_a_replica", "kill_the_listeners", "restart_postgres_fast",
    "restart_postgres_hard", "cut_commits", "bad_clients", "lines_go_dead",
    "lock_the_tables", "take_a_table_away", "take_the_rights", "be_a_standby",
)  # fmt: skip


# In the suite: one after the other, save what can happen while a replica stands still. The rollout has its own test.
IN_TURN = (
    ("kill_a_replica",), ("freeze_a_replica", "lines_go_dead"), ("kill_the_listeners",), ("restart_postgres_fast",),
    ("restart_postgres_hard",), ("cut_commits",), ("bad_clients",), ("take_a_table_away_for_a_moment",),
)  # fmt: skip


async def run_storm(
    directory: Path,
    server: OwnServer,
    *,
    seed: int,
    replicas: int,
    faults: tuple[tuple[str, ...], ...],
    members: int = 12,
) -> Storm:
    async with open_proxy(server.port) as proxy:
        url = make_url(server.tcp_url)
        await trio.to_thread.run_sync(lambda: migrate(PlatformSettings(database_url=server.url), wait=10))
        world = World(server, directory / "password")
        world.prepare()
        url = url.set(username="app", password=PASSWORD)
        direct = url.render_as_string(hide_password=False)
        through_proxy = url.set(port=proxy.port).render_as_string(hide_password=False)
        async with open_cluster(directory, replicas, database_url=through_proxy, database_direct_url=direct) as cluster:
            storm = Storm(cluster, seed)
            storm.add_members(members, writers=members // 2)
            todo = Faults(world, proxy)

            async def all_of_them(storm: Storm) -> None:
                for together in faults:
                    begun = trio.current_time()
                    async with trio.open_nursery() as nursery:
                        for fault in together:
                            nursery.start_soon(getattr(todo, fault), storm)
                    sys.stdout.write(f"{', '.join(together)}: {trio.current_time() - begun:.1f} s\n")
                    await trio.sleep(0.3)

            await storm.rage(all_of_them)
            sys.stdout.write(storm.summary() + "\n")
            return storm


async def test_a_chat_loses_nothing_under_one_fault_after_another(tmp_path: Path, newest_server: OwnServer) -> None:
    with trio.fail_after(LIMIT):
        storm = await run_storm(tmp_path, newest_server, seed=1, replicas=2, faults=IN_TURN)

        assert storm.reckoning() == []
        assert len(storm.history.acks) > 100


@pytest.mark.drill
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("replicas", [2, 3])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_chat_loses_nothing(
    tmp_path: Path, newest_server: OwnServer, fault: str, replicas: int, seed: int
) -> None:
    with trio.fail_after(LIMIT):
        storm = await run_storm(tmp_path, newest_server, seed=seed, replicas=replicas, faults=((fault,),), members=20)

        assert storm.reckoning() == []
