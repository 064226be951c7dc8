"""After a restore the seqs begin again earlier: `service epoch` makes that a gap that is told, and not a silent one."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio
from trio.testing import MockClock

from service.chat import CHAT, store
from service.chat.epoch import epoch as renew_epoch
from service.chat.store import Draft
from service.chat.tables import epoch_table
from service.platform.database import Database
from service.platform.database.migrate import migrate
from service.platform.errors import DeadlineExceeded, Unavailable
from service.platform.settings import PlatformSettings
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import run_to_end, started
from tests.chat.wire import open_raw
from tests.docs.test_backup import BLOCKS, run_page, skip_without_programs
from tests.platform.database.observer import OTHERS, Observer, observe
from tests.platform.database.proxy import open_proxy

ROOM = "lobby"


async def say(database: Database, text: str) -> tuple[str, int]:
    """Store a message; return epoch and seq, as its ack would say them."""
    draft = Draft(room=ROOM, id=text, author="ada", text=text)
    appended = await database.run(store.append_waiting, [draft], lock_timeout=1)
    return appended.epoch, appended.messages[0].seq


@pytest.mark.parametrize("renewed", [True, False])
async def test_a_member_from_before_a_restore_is_told_of_the_gap_if_the_epoch_was_renewed(
    *,
    renewed: bool,
    tmp_path: Path,
    database: Database,
    database_url: str,
    empty_database_url: str,
    make_settings: MakeSettings,
) -> None:
    skip_without_programs(database_url)

    async def run(block: str, url: str) -> None:
        await trio.to_thread.run_sync(run_page, block, tmp_path, url)

    await say(database, "before the backup")
    await run(BLOCKS[0], database_url)
    epoch, seq = await say(database, "lost with the restore")
    await run(BLOCKS[1], empty_database_url)
    if renewed:
        await run("service epoch\n", empty_database_url)

    settings = make_settings(database_url=empty_database_url, bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [CHAT]) as urls, open_raw(urls.public) as other, open_raw(urls.public) as member:
        await join(other, {})
        await other.send({"type": "send", "room": ROOM, "id": "new", "text": "after the restore"})
        ack = await other.expect("ack")
        joined = await join(member, {"since": {"epoch": epoch, "seq": seq}})

    assert ack["seq"] == seq == 2  # another message under a seq that the member has
    assert joined["gap"] is renewed


async def join(line: Any, since: dict[str, Any]) -> dict[str, Any]:
    with trio.fail_after(10):
        await line.send({"type": "join", "room": ROOM, "ref": "1", **since})
        joined: dict[str, Any] = await line.expect("joined")
    return joined


def test_an_epoch_that_cannot_be_renewed_is_a_sentence(tmp_path: Path, empty_database_url: str) -> None:
    away, bare = (
        run_to_end(tmp_path, "epoch", database_url=url)
        for url in ("postgresql://me:hunter2@127.0.0.1:1/db", empty_database_url)
    )

    for done, why in ((away, "PostgreSQL cannot be reached"), (bare, "chat_epoch")):
        said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert (done.returncode, len(said)) == (1, 1), done.stderr
        assert said[0].startswith("the epoch was not renewed: ")
        assert why in done.stderr
        assert "Traceback" not in said[0]
        assert "hunter2" not in done.stderr


async def test_a_database_that_is_being_restored_has_no_epoch_to_renew(database: Database) -> None:
    await database.run(lambda connection: connection.execute(sa.delete(epoch_table)))

    with pytest.raises(Unavailable, match="it is being restored"):
        await database.run(store.renew_epoch)


async def wait_for_lock(observer: Observer) -> None:
    """Return once somebody waits for one."""
    while not observer.ask(f"SELECT count(*) {OTHERS} AND wait_event_type = 'Lock'"):
        await trio.sleep(0.01)


async def test_an_epoch_over_a_line_that_falls_silent_is_given_up(one_server: OwnServer, mock_clock: MockClock) -> None:
    mock_clock.rate = 1
    migrate(PlatformSettings(database_url=one_server.url))
    with trio.fail_after(40), observe(one_server.url) as observer, observe(one_server.url) as holder:
        async with open_proxy(one_server.port) as proxy, trio.open_nursery() as nursery:

            async def renew() -> None:
                with pytest.RaisesGroup(pytest.RaisesExc(DeadlineExceeded, match="did not answer within 10 s")):
                    await renew_epoch(PlatformSettings(database_url=proxy.url()))

            with holder.connection.transaction():
                holder.connection.execute(f"LOCK TABLE {epoch_table.name}")
                nursery.start_soon(renew)
                await wait_for_lock(observer)
                proxy.mute()
                mock_clock.jump(10)


@pytest.mark.parametrize("committed", [False, True], ids=["before it", "after it"])
async def test_an_epoch_whose_commit_has_no_answer_is_not_said_to_be_the_old_one(
    tmp_path: Path, one_server: OwnServer, *, committed: bool
) -> None:
    migrate(PlatformSettings(database_url=one_server.url))
    with trio.fail_after(40), observe(one_server.url) as observer, observe(one_server.url) as holder:
        async with open_proxy(one_server.port) as proxy:
            with started(tmp_path, "epoch", database_url=proxy.url()) as cut:
                with holder.connection.transaction():
                    holder.connection.execute(f"LOCK TABLE {epoch_table.name}")
                    await wait_for_lock(observer)
                    proxy.break_at(b"COMMIT", forward=committed)
                code = await cut.wait_end()

    [line] = [line for line in cut.log.read_text().splitlines() if not line.startswith("{")]
    assert (code, proxy.broken) == (1, 1)
    assert line.startswith("it is not known whether the epoch was renewed: the connection was lost while committing")
    assert line.endswith("; run it again, a second new one does no harm")
