"""`service dev` at a save: the new code answers, no request notices, and code that does not start changes nothing."""

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
import trio
from trio_websocket import ConnectionClosed

from service.platform.testing.copies import run_in
from service.platform.testing.fixtures import HEAD, waits_for_a_schema
from service.platform.testing.processes import SERVICE, Process, close_code, descendants, open_websocket, run_to_end
from tests.platform.database.migrations import write_migration
from tests.system.reloaded import PROBE, Clone, developing, wait_said

CLOSE = {"Connection": "close"}


async def answered(url: str, text: str) -> None:
    """Wait until a new connection gets this answer."""
    async with httpx2.AsyncClient(timeout=60) as client:
        with trio.fail_after(60):
            while (await client.get(url + "/answer", headers={"Connection": "close"})).text != text:
                await trio.sleep(0.02)


async def ask_on(url: str, seen: Counter[str], *, keep: bool) -> None:
    """Ask until cancelled, on new connections or on one that is kept."""
    async with httpx2.AsyncClient(timeout=60) as client:
        while True:
            try:
                response = await client.get(url + "/answer", headers={} if keep else {"Connection": "close"})
                seen[f"{response.status_code} {response.text}"] += 1
            except httpx2.HTTPError as error:
                seen[repr(error)] += 1
            await trio.sleep(0.005)


async def test_a_save_is_answered_by_new_code_and_no_request_notices(clone: Clone) -> None:
    seen: Counter[str] = Counter()
    async with developing(clone) as service, trio.open_nursery() as asking:
        url = service.public
        asking.start_soon(lambda: ask_on(url, seen, keep=False))
        asking.start_soon(lambda: ask_on(url, seen, keep=True))
        async with open_websocket(url, "/wait") as old:
            assert await old.get_message() == "first"
            clone.answer("second")
            with pytest.raises(ConnectionClosed) as told:
                await old.get_message()
        await answered(url, "second")
        async with open_websocket(url, "/wait") as resumed:
            assert await resumed.get_message() == "second"

        clone.save(PROBE + "\ndef broken(:\n")
        said = await wait_said(service, "not reloaded")
        await answered(url, "second")
        clone.answer("third")
        await answered(url, "third")
        asking.cancel_scope.cancel()

    assert close_code(told.value) == 1012
    where = f"service/probe.py:{PROBE.count('\n') + 2}"
    assert f"  SyntaxError: invalid syntax\n    {where}\n      def broken(:\n                 ^\n" in said
    assert "Traceback" not in said
    assert set(seen) - {"200 third"} == {"200 first", "200 second"}  # who asks may have been cancelled before the third


async def test_what_fails_at_its_start_leaves_the_old_one_serving(clone: Clone) -> None:
    async with developing(clone) as service:
        clone.save(PROBE + "\nraise LookupError('no such thing')\n")
        said = await wait_said(service, "not reloaded")
        await answered(service.public, "first")
        clone.save(PROBE.replace("    yield routes", "    raise OSError('nothing listens there')\n    yield routes"))
        said = await wait_said(service, "not reloaded", times=2)
        await answered(service.public, "first")
        clone.save(PROBE + "\nraise SystemExit('no such plan')\n")
        said = await wait_said(service, "not reloaded", times=3)
        await answered(service.public, "first")

    assert "  ImportError: service.probe called sys.exit('no such plan') as it was imported\n" in said
    assert said.count(f"service/probe.py:{PROBE.count('\n') + 2} in <module>\n") == 2
    assert "  LookupError: no such thing\n" in said
    assert f"service/probe.py:{PROBE.count('\n') + 2} in <module>\n" in said
    assert "  OSError: nothing listens there\n" in said
    assert "in open_probe\n" in said
    assert "Traceback" not in said


async def test_many_files_at_once_are_one_reload(clone: Clone) -> None:
    async with developing(clone) as service:
        for number in range(10):
            (clone.path / "service" / f"part{number}.py").write_text("")
        await wait_said(service, "reloaded in")
        clone.answer("second")
        await answered(service.public, "second")
        said = await wait_said(service, "reloaded in", times=2)

    told = [line.split(": ", 1)[1] for line in said.splitlines() if "reloaded in" in line]
    assert told == ["service/part0.py, service/part1.py, service/part2.py and 7 more", "service/probe.py"]


@waits_for_a_schema
@pytest.mark.parametrize("folder", ["service", "."])
async def test_a_file_whose_name_is_no_utf8_ends_nothing(clone: Clone, folder: str) -> None:
    async with developing(clone) as service:
        Path(os.fsdecode(os.fsencode(clone.path / folder) + b"/\xff.py")).write_text("")
        await wait_said(service, "reloaded in")
        clone.answer("second")
        await answered(service.public, "second")


async def test_a_saved_migration_is_applied(clone: Clone) -> None:
    async with developing(clone) as service, httpx2.AsyncClient() as client:
        write_migration(clone.path / "migrations", "later", HEAD, serves_from=HEAD, up="CREATE TABLE later ()")
        await wait_said(service, "reloaded in")
        await wait_said(service, "stopped")  # until then the old one answers operators too
        schema = (await client.get(service.management + "/info")).json()["schema"]

    assert schema == {"state": "at", "revision": "later", "head": "later"}


async def test_a_migration_that_is_edited_after_it_was_applied_is_told_until_it_is_taken_back(clone: Clone) -> None:
    migrations, edited = clone.path / "migrations", "migration later was edited after it had been applied"

    def save(table: str, comment: str = "") -> None:
        up, back = f"CREATE TABLE {table} ()", f"DROP TABLE IF EXISTS {table}, later"
        write_migration(migrations, "later", HEAD, serves_from=HEAD, up=up, back=back)
        file = migrations / "versions" / "later.py"
        file.write_text(file.read_text() + comment)

    async with developing(clone) as service:
        save("later")
        await wait_said(service, "reloaded in")
        save("later", "# what it is for\n")
        unchanged = await wait_said(service, "reloaded in", times=2)
        save("latest")
        told = await wait_said(service, "reloaded in", times=3)
        taken_back = await trio.to_thread.run_sync(run_in, clone.path, "alembic", "downgrade", "later-1")
        clone.answer("second")
        await wait_said(service, "reloaded in", times=4)
        save("last")
        await wait_said(service, edited, times=2)
        for verb in (("downgrade", "later-1"), ("upgrade", "head")):  # by hand
            await trio.to_thread.run_sync(run_in, clone.path, "alembic", *verb)
        clone.answer("third")
        done = await wait_said(service, "reloaded in", times=6)

    assert edited not in unchanged
    assert told.count(f"  {edited}, and is not applied again: to take it back, `.venv/bin/alembic downgrade ") == 1
    assert (taken_back.returncode, done.count(edited)) == (0, 2), taken_back.stderr


async def test_settings_are_read_anew(clone: Clone) -> None:
    """At an address that is another, too: nobody is left to wait at the one before."""
    host = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # no other test's
    file = clone.path / ".env"
    file.write_text(f"SERVICE_BIND={host}:18000\n")
    async with developing(clone, bind="") as service, httpx2.AsyncClient() as client:
        before = service.public
        file.write_text(f"SERVICE_BIND={host}:18001\nSERVICE_REQUEST_DEADLINE=7\n")
        await wait_said(service, "reloaded in")
        await wait_said(service, "stopped")
        shown = (await client.get(service.management + "/settings")).json()
        answer = await client.get(f"http://{host}:18001/answer")
        with pytest.raises(httpx2.NetworkError):
            await client.get(before + "/answer")

    assert shown["SERVICE_REQUEST_DEADLINE"]["value"] == "7"
    assert (before, answer.text) == (f"http://{host}:18000", "first")


async def test_one_that_ends_by_itself_is_started_again(clone: Clone) -> None:
    clone.save(PROBE.replace('"first"', "str(__import__('os').getpid())"))
    async with developing(clone) as service, httpx2.AsyncClient(timeout=60) as client:
        url = service.public  # it stays, and is told to nobody while none is ready
        killed = [await kill_who_answers(client, url) for _ in range(2)]
        last = (await client.get(url + "/answer", headers=CLOSE)).text  # it waits, and not in vain
        said = await wait_said(service, "the service has ended with 137; it starts again in", times=2)
        clone.answer("saved")
        await answered(url, "saved")

    assert len({*killed, last}) == 3
    assert "ended with 137; it starts again in 0.5 s" in said
    assert "ended with 137; it starts again in 1 s" in said


async def test_while_none_can_be_started_nobody_waits_for_one(clone: Clone) -> None:
    last_words = "\nif __import__('pathlib').Path('broken').exists():\n    raise LookupError('broken')\n"
    clone.save(PROBE.replace('"first"', "str(__import__('os').getpid())") + last_words)
    async with developing(clone) as service, httpx2.AsyncClient(timeout=60) as client:
        url = service.public
        (clone.path / "broken").touch()
        await kill_who_answers(client, url)
        said = await wait_said(service, "not started (1): nobody is served, and the next save tries again")
        with pytest.raises(httpx2.ConnectError):
            await client.get(url + "/answer")
        clone.answer("second")
        await wait_said(service, "reloaded in")
        await answered(url, "second")

    assert "  LookupError: broken\n" in said


async def kill_who_answers(client: httpx2.AsyncClient, url: str) -> str:
    """Kill the process that answers with its number, and return that."""
    pid = (await client.get(url + "/answer", headers=CLOSE)).text
    os.kill(int(pid), signal.SIGKILL)
    return pid


async def test_a_first_start_that_fails_says_why_and_ends(clone: Clone) -> None:
    clone.save(PROBE + "\nraise LookupError('no such thing')\n")
    done = run_to_end(clone.path, "dev")

    assert (done.returncode, done.stdout) == (1, "")
    assert "  LookupError: no such thing\n" in done.stderr
    assert "Traceback" not in done.stderr


def hang_up(service: Process) -> None:
    """Say that the terminal goes, as the kernel and a shell do: to all that run in its foreground."""
    group = os.getpgid(service.process.pid)
    for pid in (service.process.pid, *descendants(service.process.pid)):
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == group:
                os.kill(pid, signal.SIGHUP)


async def test_a_terminal_that_goes_lets_the_service_drain(clone: Clone) -> None:
    command = ("env", "--default-signal=HUP", *SERVICE)
    async with developing(clone, command=command, drain_delay=1, drain_spread=0) as service:
        hang_up(service)
        await wait_said(service, " draining ")
        await trio.sleep(0.7)
        hang_up(service)  # from the shell, after the kernel's: it is no second one
        code = await service.wait_end()
        said = service.log.read_text()

    assert code == 0
    assert said.splitlines()[-1].split()[-1] == "stopped"
    assert "Traceback" not in said


async def test_without_reload_there_is_one_process_and_the_database(clone: Clone) -> None:
    async with developing(clone, "--no-reload") as service:
        below = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(service.process.pid)]
        clone.answer("second")
        async with httpx2.AsyncClient() as client:
            text = (await client.get(service.public + "/answer")).text
        service.send(signal.SIGINT)

        assert await service.wait_end() == 0
        assert text == "first"
        assert all(b"postgres" in command for command in below)
