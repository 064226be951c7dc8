"""What may happen to a job's row: who gets it, in which order, and whose end counts."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest
import trio
from sqlalchemy import Connection, event, text
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.database import Database, open_database
from service.platform.database.migrate import migrate
from service.platform.errors import Busy, Conflict, DatabaseAway, DatabaseUnable, NotFound, OutcomeUnknown
from service.platform.jobs import Job, Priority, enqueue, enqueue_many, job, operators, store
from service.platform.jobs.claims import Claims
from service.platform.jobs.enqueue import take_turn
from service.platform.jobs.held import Held
from service.platform.jobs.ledger import Ledger
from service.platform.jobs.statistics import JobStatistics, counts, rescued_again
from service.platform.jobs.store import FINISHED, Claimed, ClaimLost
from service.platform.jobs.table import CHANNEL, LATER
from service.platform.jobs.turns import Turns
from service.platform.jobs.upkeep import sweep
from service.platform.jobs.worker import BEAT
from service.platform.settings import PlatformSettings
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.proxy import open_proxy
from tests.platform.jobs import kinds
from tests.platform.jobs.clocks import find_library, given_clock
from tests.platform.jobs.kinds import note, states, tell

LEASE = 3.0


@pytest.fixture
async def database(make_settings: MakeSettings, nursery: trio.Nursery) -> Database:
    opened: list[Database] = []

    async def hold(task_status: trio.TaskStatus[None]) -> None:
        async with open_database(make_settings()) as database:
            opened.append(database)
            task_status.started()
            await trio.sleep_forever()

    await nursery.start(hold)
    await opened[0].run(kinds.create_tables)
    return opened[0]


async def claim(
    database: Database, *used: Job[...], most: int = 10, lease: float = LEASE, worker: str = "me"
) -> list[Claimed]:
    return await database.run(store.claim, used or (note, tell), most=most, worker=worker, lease=lease)


async def rescued(database: Database, retries: dict[str, int], *, lease: float) -> dict[str, int]:
    """Rescue, and return how many there were of each kind."""
    return Counter(one.kind for one in await database.run(store.rescue, retries, lease=lease))


def numbers(claimed: list[Claimed]) -> list[int]:
    return [json.loads(one.arguments)["number"] for one in claimed]


async def test_workers_are_told_of_what_is_enqueued_and_whether_it_is_due_in_a_moment(
    make_settings: MakeSettings,
) -> None:
    with trio.fail_after(30):
        async with open_database(make_settings()) as database, database.listen(CHANNEL) as told:
            await anext(told)
            await database.run(enqueue, note, number=1)
            assert await anext(told) == frozenset({""})
            await database.run(enqueue, note.with_options(delay=1), number=2)
            assert await anext(told) == frozenset({LATER})
            await database.run(enqueue_many, note, [{"number": 3}])
            assert await anext(told) == frozenset({""})


async def test_what_is_due_is_claimed_once_the_higher_priority_first(database: Database) -> None:
    priorities: tuple[Priority, ...] = ("low", "normal", "high")
    for number, priority in enumerate(priorities):
        await database.run(enqueue, note.with_options(priority=priority), number=number)
    await database.run(enqueue, note.with_options(delay=60), number=9)

    assert numbers(await claim(database, most=1)) == [2]
    assert numbers(await claim(database)) == [1, 0]
    assert await claim(database) == []


async def test_of_many_that_are_due_the_older_ones_are_claimed_first(database: Database) -> None:
    """Of more than are looked at for one claim: what came last would always be taken first, and the rest never."""
    for number in range(8):
        await database.run(enqueue, note, number=number)

    assert [numbers(await claim(database, most=1)) for _ in range(3)] == [[0], [1], [2]]


_HOLD_CLAIMS = """
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;
    CREATE TRIGGER hold BEFORE UPDATE ON job FOR EACH ROW WHEN (NEW.worker = 'slow') EXECUTE FUNCTION hold()"""


async def test_what_another_has_had_since_a_claim_began_keeps_its_pause(
    database: Database, writable_database_url: str
) -> None:
    """A claim locks its rows one after the other; the later ones may have failed at another worker by then."""
    found: list[Claimed] = []

    async def claim_slowly() -> None:
        found.extend(await database.run(store.claim, (note,), most=10, worker="slow", lease=LEASE))

    await database.run(enqueue_many, note, [{"number": number} for number in range(2)])
    with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as holder:
        holder.execute(_HOLD_CLAIMS)
        holder.execute("SELECT pg_advisory_lock(1)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim_slowly)
            while not holder.execute("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").rowcount:
                await trio.sleep(0.01)
            [other] = await claim(database, note)
            await database.run(store.fail, other, error="failed", retries=3, pause=60)
            holder.execute("SELECT pg_advisory_unlock(1)")

    assert numbers([other]) == [1]
    assert numbers(found) == [0]


async def test_a_worker_that_freezes_before_its_commit_holds_the_row_for_less_than_a_lease(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": number} for number in range(2)])
    one, other = await claim(database)

    def freeze_at_the_end(connection: Connection) -> None:
        store.finish(connection, one)
        time.sleep(LEASE)

    def freeze_while_extending(connection: Connection) -> None:
        store.brief(store.extend)(connection, [other], lease=LEASE)
        time.sleep(LEASE)

    for frozen in (freeze_at_the_end, freeze_while_extending):
        with pytest.raises((DatabaseAway, OutcomeUnknown)):
            await database.run(frozen)

    assert await database.read(states) == {"running": 2}


async def test_what_is_handed_back_is_told_to_other_workers(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": number} for number in range(3)])
    one, *others = await claim(database)
    async with database.listen(CHANNEL) as wakeups:
        heard = aiter(wakeups)
        await anext(heard)  # that it listens
        await database.run(store.hand_back, one)
        with trio.fail_after(10):
            await anext(heard)
        await database.run(store.hand_back_many, others)
        with trio.fail_after(10):
            await anext(heard)

    assert await database.read(states) == {"waiting": 3}


@pytest.mark.parametrize("concurrency", [2**31, 10**30])
async def test_a_limit_of_any_size_keeps_nobody_from_claiming(database: Database, concurrency: int) -> None:
    @job(name="note", concurrency=concurrency)
    def as_many_as_there_are(connection: Connection, *, number: int) -> None: ...

    await database.run(enqueue, as_many_as_there_are, number=1)
    await database.run(enqueue, tell, number=2)

    assert numbers(await claim(database, as_many_as_there_are, tell)) == [1, 2]


async def test_kinds_take_turns_however_many_wait_of_one(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": number} for number in range(50)])
    await database.run(enqueue_many, tell, [{"number": number} for number in range(50)])

    assert Counter(one.kind for one in await claim(database)) == {"note": 5, "tell": 5}


async def test_workers_that_claim_at_once_share_and_never_double(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": number} for number in range(200)])
    found: list[int] = []

    async def worker() -> None:
        while some := await claim(database, most=7):
            found.extend(numbers(some))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(worker)

    assert sorted(found) == list(range(200))


@job(concurrency=2)
def narrow(connection: Connection, *, number: int) -> None: ...


async def test_a_kind_s_limit_holds_in_the_whole_cluster(database: Database) -> None:
    await database.run(enqueue_many, narrow, [{"number": number} for number in range(9)])
    found: list[Claimed] = []

    async def worker() -> None:
        found.extend(await claim(database, narrow))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(worker)
    found += await claim(database, narrow)  # whoever met another's lock took none

    assert len(found) == 2
    await database.run(store.finish_many, found[:1])
    assert len(await claim(database, narrow)) == 1


async def test_a_job_that_is_locked_keeps_no_other_of_a_kind_with_a_limit_from_being_claimed(
    database: Database, writable_database_url: str
) -> None:
    """As by a unit that enqueues under its key, and may take as long as a request, or a job."""
    await database.run(enqueue, narrow, number=0)
    await claim(database, narrow)
    for key in ("a", "b", "c"):
        await database.run(enqueue, narrow.with_options(key=key), number=ord(key))
    with psycopg.connect(writable_database_url.replace("+psycopg", "")) as unit:
        unit.execute("SELECT FROM job WHERE key = 'a' FOR UPDATE")

        assert numbers(await claim(database, narrow, note)) == [ord("b")]
        assert numbers(await claim(database, narrow, note)) == []


@pytest.mark.parametrize("waiting", [0, 1, 5])
async def test_a_claim_takes_as_many_statements_however_many_kinds_have_a_limit(
    database: Database, waiting: int
) -> None:
    """A worker claims each time when anything is enqueued, and keeps others from those kinds meanwhile."""

    def claiming(connection: Connection, *limited: Job[...]) -> int:
        return counted(connection, lambda: store.claim(connection, [note, *limited], most=10, worker="me", lease=LEASE))

    def nothing(connection: Connection) -> None: ...

    others = [job(name=f"limited_{number}", concurrency=3)(nothing) for number in range(4)]
    for number in range(waiting):
        await database.run(enqueue, note, number=number)

    assert await database.run(claiming, *others) == await database.run(claiming, others[0])


def counted(connection: Connection, function: Callable[[], object]) -> int:
    """Return how many statements it takes."""
    statements: list[str] = []
    event.listen(connection, "before_cursor_execute", lambda *given: statements.append(given[2]))
    function()
    return len(statements)


async def test_only_the_claim_that_holds_a_job_can_end_it(database: Database) -> None:
    await database.run(enqueue, note, number=1)
    [late] = await claim(database, lease=0.05)
    await trio.sleep(0.2)
    ended = await database.run(store.rescue, {"note": 3}, lease=0.05)
    [now] = await claim(database)

    assert [(one.kind, one.id, one.state, one.failures) for one in ended] == [("note", late.id, "waiting", 1)]
    assert (now.id, now.claim, now.failures) == (late.id, late.claim + 1, 1)
    with pytest.raises(ClaimLost):
        await database.run(store.finish, late)
    with pytest.raises(ClaimLost):
        await database.run(store.fail, late, error="late", retries=0, pause=0)
    with pytest.raises(ClaimLost):
        await database.run(store.hand_back, late)
    assert await database.run(store.finish_many, [late, now]) == {now.id}
    assert await rescued(database, {"note": 3}, lease=0.05) == {}
    assert await database.read(states) == {"done": 1}
    with pytest.raises(ClaimLost):
        await database.run(store.hand_back, late)  # also when it is done: another did that


async def test_what_a_failover_has_forgotten_is_of_who_claimed_it_since(database: Database) -> None:
    """The server that takes over had not heard of the claim, or of the job: the number is given a second time."""
    await database.run(enqueue_many, note, [{"number": 1}])
    [lost] = await claim(database, worker="of before")
    await database.run(lambda connection: connection.execute(_FORGET_CLAIM))
    [now] = await claim(database)
    assert (now.id, now.claim) == (lost.id, lost.claim)

    assert await database.run(store.extend, [lost], lease=LEASE) == set()
    assert await database.run(store.finish_many, [lost]) == set()
    for end in (store.finish, partial(store.fail, error="late", retries=0, pause=0)):
        with pytest.raises(ClaimLost):
            await database.run(end, lost)
    await database.run(store.hand_back, lost)
    await database.run(store.hand_back_unknown, [now], worker="me")
    assert await database.run(store.extend, [now], lease=LEASE) == {now.id}
    await database.run(store.finish, now)
    assert await database.run(store.finish_many, [lost]) == set()


_FORGET_CLAIM = text("UPDATE job SET state = 'waiting', claim = 0, leased_until = NULL, worker = NULL")


async def test_an_end_that_is_written_again_is_no_loss(database: Database) -> None:
    """Of a COMMIT whose answer was lost nobody knows whether it is there."""
    await database.run(enqueue, note, number=1)
    found = await claim(database)
    first = await database.run(store.finish_many, found)

    assert await database.run(store.finish_many, found) == first == {one.id for one in found}
    assert await database.read(states) == {"done": 1}


@pytest.mark.parametrize(
    ("end", "ended"),
    [
        (partial(store.fail, error="e" * 600 + "\0", retries=3, pause=0), "waiting"),
        (partial(store.fail, error="e", retries=0, pause=0), "dead"),
        (partial(store.hand_back, why="no room"), "waiting"),
        (store.hand_back, "waiting"),
    ],
    ids=["failed", "dead", "handed back with a reason", "handed back"],
)
async def test_no_other_end_that_is_written_again_is_a_loss_or_ends_it_twice(
    database: Database, end: Callable[[Connection, Claimed], str], ended: str
) -> None:
    await database.run(enqueue, note, number=1)
    [found] = await claim(database)

    assert [await database.run(end, found) for _ in range(2)] == [ended, ended]
    others = await claim(database)  # has it meanwhile, if it waits
    assert await database.run(end, found) == ("running" if others else ended)
    assert await database.run(store.extend, others, lease=LEASE) == {one.id for one in others}


async def test_what_a_job_failed_with_is_forgotten_once_it_is_done(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": number} for number in range(2)])
    for one in await claim(database):
        await database.run(store.fail, one, error="failed", retries=3, pause=0)
    first, second = await claim(database)
    await database.run(store.finish, first)
    await database.run(store.finish_many, [second])

    rows = [await database.read(operators.select_one, one.id) for one in (first, second)]
    assert [(row["state"], row["failures"], row["error"]) for row in rows] == [("done", 1, None)] * 2


async def test_only_a_worker_s_own_jobs_of_which_it_does_not_know_are_handed_back(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": number} for number in range(3)])
    [known], [unknown] = [await claim(database, most=1) for _ in range(2)]
    [other] = await database.run(store.claim, (note,), most=1, worker="other", lease=LEASE)
    await database.run(store.hand_back_unknown, [known], worker="me")

    assert await database.run(store.extend, [known, unknown, other], lease=LEASE) == {known.id, other.id}
    assert await database.read(states) == {"running": 2, "waiting": 1}


async def test_a_job_that_is_done_is_not_lost_to_who_never_heard_so(database: Database) -> None:
    """As of a SQL job, whose own transaction ends it: who does not know whether that is there hands it back."""
    await database.run(enqueue, note, number=1)
    [found] = await claim(database)
    await database.run(store.finish, found)

    assert await database.run(store.hand_back, found, pause=1, why="no answer") == FINISHED
    assert await database.read(states) == {"done": 1}


async def test_a_clock_that_was_put_back_keeps_no_job_for_hours(database: Database) -> None:
    await database.run(enqueue, note, number=1)
    await claim(database, lease=3_600)

    assert await rescued(database, {}, lease=0.05) == {"note": 1}


async def test_a_clock_that_was_put_forward_takes_nothing_from_who_lives(database: Database) -> None:
    await database.run(enqueue, note, number=1)
    while not await database.read(is_up_for, 1.6):
        await trio.sleep(0.1)
    claimed = await claim(database, lease=0.05)
    await trio.sleep(0.1)
    before = (await database.run(store.look, (note,), lease=0.05, rescuing=False)).now.timestamp()

    seen = await database.run(store.look, (note,), lease=0.05, until=before)
    assert (seen.rescued, await database.read(states)) == ([], {"running": 1})
    assert await database.run(store.extend, claimed, lease=LEASE) == {claimed[0].id}


async def test_a_step_that_came_after_a_look_that_waited_takes_nothing_from_who_lives_either(
    database: Database, mock_clock: MockClock
) -> None:
    """The server's clock is forward as Trio's stands still here, by less than the look before the step had waited."""

    def wait(_: Connection) -> bool:
        taken.set()
        return free.wait(30)

    own, taken, free = database.beside(1, queue_wait=60), threading.Event(), threading.Event()
    statistics = JobStatistics(["note"])
    ledger = Ledger(own, statistics, written=lambda: None, due=lambda _: None)
    claims = Claims(ledger, Held(1), {"note": note}, statistics, worker="other", age=60, begin=lambda: None)
    while not await database.read(is_up_for, LEASE):
        await trio.to_thread.run_sync(time.sleep, 0.1)
    await database.run(enqueue, note, number=1)
    async with trio.open_nursery() as waiting:
        waiting.start_soon(own.run, wait)
        await trio.to_thread.run_sync(taken.wait)
        waiting.start_soon(partial(claims._see, rescuing=True))
        await wait_all_tasks_blocked()
        mock_clock.jump(LEASE - 0.1)
        free.set()
    claimed = await claim(database, lease=0.05)
    await database.read(sleep, LEASE - BEAT)

    assert (await claims._see(rescuing=True)).rescued == []
    assert await database.run(store.extend, claimed, lease=LEASE) == {claimed[0].id}


async def test_who_could_not_look_for_a_moment_rescues_again_a_lease_later(
    database: Database, mock_clock: MockClock
) -> None:
    own = database.beside(1, queue_wait=0)
    ledger = Ledger(own, JobStatistics(["note"]), written=lambda: None, due=lambda _: None)
    claims = Claims(
        ledger, Held(1), {"note": note}, JobStatistics(["note"]), worker="other", age=60, begin=lambda: None
    )
    while not await database.read(is_up_for, LEASE):
        await trio.to_thread.run_sync(time.sleep, 0.1)
    await database.run(enqueue, note, number=1)
    await claim(database, lease=0.05)
    async with trio.open_nursery() as holding:
        holding.start_soon(own.read, sleep, 0.5)
        await wait_all_tasks_blocked()
        with pytest.raises(Busy):
            await claims._see(rescuing=True)
    await claims._look()
    assert await database.read(states) == {"running": 1}
    mock_clock.jump(LEASE)
    await claims._look()

    assert await database.read(states) == {"waiting": 1}


def sleep(connection: Connection, seconds: float) -> None:
    connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


async def test_a_server_whose_clock_was_put_back_behind_its_own_start_rescues(
    one_server: OwnServer, tmp_path: Path
) -> None:
    library = find_library()
    if library is None:
        pytest.skip("there is no libfaketime here")
    with given_clock(one_server, tmp_path, library) as clock:
        clock.jump(-3_600)
        settings = PlatformSettings(database_url=one_server.tcp_url)
        migrate(settings)
        async with open_database(settings) as database:
            await database.run(enqueue, note, number=1)
            await claim(database, lease=0.05)
            await trio.sleep(0.1)

            assert await rescued(database, {}, lease=0.05) == {"note": 1}


async def test_a_server_that_does_not_answer_within_a_lease_is_away(database: Database) -> None:
    ledger = Ledger(database, JobStatistics(["note"]), written=lambda: None, due=lambda _: None)

    with pytest.raises(DatabaseAway, match="did not answer within 3 s"):
        await ledger.ask(sleep, 60.0)


async def test_a_table_of_jobs_that_another_session_has_locked_is_told_as_that(
    database: Database, writable_database_url: str
) -> None:
    """As by VACUUM FULL. That PostgreSQL did not answer would lead to the network, while requests are answered."""
    ledger = Ledger(database, JobStatistics(["note"]), written=lambda: None, due=lambda _: None)
    await database.run(enqueue, note, number=1)
    claimed = await claim(database)
    with psycopg.connect(writable_database_url.replace("+psycopg", "")) as holder:
        holder.execute("LOCK TABLE job")

        with trio.fail_after(30), pytest.raises(DatabaseUnable, match="another session holds a lock"):
            await ledger.ask(store.extend, claimed, lease=LEASE)


async def test_a_lease_that_is_extended_is_not_rescued(database: Database) -> None:
    await database.run(enqueue, note, number=1)
    while not await database.read(is_up_for, 1.6):
        await trio.sleep(0.1)
    claimed = await claim(database, lease=0.05)
    held = await database.run(store.extend, claimed, lease=3)
    await trio.sleep(0.1)

    assert held == {claimed[0].id}
    assert await rescued(database, {}, lease=1.6) == {}


def is_up_for(connection: Connection, seconds: float) -> bool:
    query = text("SELECT pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => :seconds)")
    return bool(connection.execute(query, {"seconds": seconds}).scalar_one())


async def test_no_lease_is_over_before_the_server_has_been_up_for_as_long(database: Database) -> None:
    await database.run(enqueue, note, number=1)
    await claim(database, lease=0.05)
    await trio.sleep(0.1)

    assert await rescued(database, {}, lease=86_400.0 * 365) == {}


async def test_an_outage_that_a_claim_alone_has_met_ends_no_lease_either(one_server: OwnServer) -> None:
    """Those that live were cut off as well, and extend theirs as soon as they can."""
    direct = PlatformSettings(database_url=one_server.tcp_url)
    migrate(direct)
    statistics = JobStatistics(["note"])
    with trio.fail_after(60):
        async with (
            open_proxy(one_server.port) as proxy,
            open_database(direct) as database,
            open_database(PlatformSettings(database_url=proxy.url())) as proxied,
        ):
            ledger = Ledger(proxied, statistics, written=lambda: None, due=lambda _: None)
            claims = Claims(ledger, Held(1), {"note": note}, statistics, worker="me", age=60, begin=lambda: None)
            await claims._look()
            await database.run(enqueue, note, number=1)
            others = await claim(database, worker="other")
            proxy.silent = True
            proxy.mute()
            with pytest.raises(DatabaseAway):
                await claims.claim(1)
            proxy.silent = False
            proxy.cut()
            await claims._look()

            assert await database.run(store.extend, others, lease=LEASE) == {others[0].id}


async def test_a_job_that_its_worker_is_about_to_commit_is_neither_rescued_nor_waited_for(
    database: Database, writable_database_url: str
) -> None:
    await database.run(enqueue, note, number=1)
    [one] = claimed = await claim(database, lease=0.05)
    await trio.sleep(0.1)
    with psycopg.connect(writable_database_url.replace("+psycopg", "")) as worker:
        worker.execute("SELECT 1 FROM job WHERE id = %s FOR UPDATE", (one.id,))
        with trio.fail_after(5):
            assert await rescued(database, {}, lease=0.05) == {}
            assert await database.run(store.extend, claimed, lease=60) == {one.id}


async def test_without_a_retry_left_it_is_dead_by_failure_and_by_rescue(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": 1}, {"number": 2}])
    first, second = await claim(database, lease=0.05)
    await database.run(store.fail, first, error="no\0such", retries=0, pause=0)
    await trio.sleep(0.1)
    await database.run(store.rescue, {"note": 0}, lease=0.05)
    rows = [await database.read(operators.select_one, one.id) for one in (first, second)]

    assert [row["state"] for row in rows] == ["dead", "dead"]
    assert [row["error"] for row in rows] == ["nosuch", "worker me was killed, frozen or cut off"]


@job(retries=1)
def end_worker(connection: Connection) -> None:
    """Stand for what ends each process that runs it."""


async def test_the_log_names_each_job_whose_worker_was_gone_and_says_when_it_is_dead(database: Database) -> None:
    """Whoever ran it can say nothing any more."""
    own, statistics = database.beside(1, queue_wait=60), JobStatistics([end_worker.name])
    ledger = Ledger(own, statistics, written=lambda: None, due=lambda _: None)
    kinds_here = {end_worker.name: end_worker}
    claims = Claims(ledger, Held(1), kinds_here, statistics, worker="other", age=60, begin=lambda: None)
    while not await database.read(is_up_for, LEASE):
        await trio.sleep(0.1)
    lost = await database.run(enqueue, end_worker)
    with capture_logs() as lines:
        for worker in ("first", "second"):
            await database.run(store.claim, [end_worker], most=1, worker=worker, lease=0.05)
            await trio.sleep(0.1)
            await claims._look()

    gone = "worker {} was killed, frozen or cut off"
    again = f"{gone}, as was the one before it"
    about = {"kind": "end_worker", "id": lost}
    assert [line for line in lines if line["event"].startswith("job")] == [
        about | {"event": "job rescued", "log_level": "warning", "attempt": 1, "error": gone.format("first")},
        about | {"event": "job dead", "log_level": "error", "attempt": 2, "error": again.format("second")},
    ]
    assert statistics.rescued == {"end_worker": 2}


async def test_the_rows_tell_which_jobs_have_lost_two_workers_in_a_row(database: Database) -> None:
    """Also while one waits for its moment, and while one runs; what has failed by itself in between has not."""
    await database.run(enqueue_many, note, [{"number": number} for number in range(3)])
    await lose_workers(database)
    for one in await claim(database, most=1):
        await database.run(store.fail, one, error="RuntimeError: by itself", retries=3, pause=0)
    await lose_workers(database)
    waits = await database.read(rescued_again)
    await database.run(lambda connection: connection.execute(_ALL_LONG_DUE))
    wait_on = await database.read(rescued_again)
    await database.run(lambda connection: connection.execute(_ALL_DUE))
    await claim(database)
    run = await database.read(rescued_again)
    await database.run(lambda connection: connection.execute(_ALL_LOST))
    [died, *_] = await database.run(store.rescue, {"note": 0}, lease=0.05)
    dead = await database.read(rescued_again)
    await database.run(operators.retry, died.id)

    assert waits == run == {"note": 2}
    assert wait_on == dead == {}
    assert await database.read(rescued_again) == {}  # what an operator retries begins anew


_ALL_LONG_DUE = text("UPDATE job SET run_at = now() - interval '2 min'")
_ALL_DUE = text("UPDATE job SET run_at = now()")
_ALL_LOST = text("UPDATE job SET leased_until = now() - interval '1 s'")


async def lose_workers(database: Database) -> None:
    """Have all that is due lose its worker."""
    await claim(database, lease=0.05)
    await trio.sleep(0.1)
    await database.run(store.rescue, {}, lease=0.05)


async def test_jobs_whose_workers_are_gone_again_are_begun_apart(database: Database) -> None:
    """One of them may be what ends the workers: the first time all begin at once, and then each at its own moment."""
    await database.run(enqueue_many, note, [{"number": number} for number in range(10)])
    await lose_workers(database)
    at_once = await database.read(due_at)
    await lose_workers(database)
    apart = await database.read(due_at)

    assert len(set(at_once)) == 1  # that of their transaction
    assert len(set(apart)) == 10
    assert await database.read(lambda connection: connection.execute(_FARTHEST).scalar_one()) <= store.APART


async def test_what_an_operator_retries_has_lost_none_in_a_row(database: Database) -> None:
    id_ = await database.run(enqueue, note, number=1)
    for _ in range(2):
        await lose_workers(database)
    await database.run(operators.discard, id_)
    again = await database.run(operators.retry, id_)
    await lose_workers(database)
    row = await database.read(operators.select_one, id_)

    assert (row["state"], row["failures"], row["run_at"]) == ("waiting", 1, again["run_at"])  # begun at once
    assert row["error"] == f"worker me {store.GONE}"


def due_at(connection: Connection) -> list[datetime]:
    return list(connection.execute(text("SELECT run_at FROM job WHERE state = 'waiting'")).scalars())


_FARTHEST = text("SELECT CAST(EXTRACT(epoch FROM max(run_at) - now()) AS float8) FROM job")


async def test_a_rescued_job_of_a_kind_that_nobody_here_knows_waits(database: Database) -> None:
    await database.run(enqueue, note, number=1)
    await claim(database, lease=0.05)
    await trio.sleep(0.1)
    await database.run(store.rescue, {"another": 0}, lease=0.05)

    assert await database.read(states) == {"waiting": 1}


async def test_handing_back_spends_no_attempt_and_keeps_the_place(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": 1}, {"number": 2}])
    [one] = await claim(database, most=1)
    await database.run(store.hand_back, one)
    [again] = await claim(database, most=1)

    assert (again.id, again.failures) == (one.id, 0)
    await database.run(store.hand_back_many, [again, *await claim(database)])
    assert [(one.id, one.failures) for one in await claim(database)] == [(one.id, 0), (one.id + 1, 0)]


# under a key


async def test_one_of_a_kind_waits_under_a_key_with_the_newer_arguments_and_the_earlier_time(
    database: Database,
) -> None:
    keyed = note.with_options(key="k", delay=60)
    first = await database.run(enqueue, keyed, number=1)
    second = await database.run(enqueue, note.with_options(key="k"), number=2)
    other = await database.run(enqueue, tell.with_options(key="k"), number=3)

    assert first == second != other
    assert numbers(await claim(database)) == [2, 3]


async def test_one_that_runs_keeps_no_other_from_waiting_and_yields_to_it(database: Database) -> None:
    keyed = note.with_options(key="k")
    await database.run(enqueue, keyed, number=1)
    [running] = await claim(database)
    await database.run(enqueue, keyed, number=2)
    state = await database.run(store.fail, running, error="no", retries=3, pause=0)

    assert state == "done"
    assert numbers(await claim(database)) == [2]


async def test_a_job_of_another_kind_stands_for_none_though_its_key_is_the_same(database: Database) -> None:
    await database.run(enqueue, note.with_options(key="k"), number=1)
    [one] = await claim(database)
    await database.run(enqueue, tell.with_options(key="k"), number=2)

    assert await database.run(store.fail, one, error="no", retries=3, pause=0) == "waiting"
    assert sorted(numbers(await claim(database))) == [1, 2]


@pytest.mark.parametrize("fails", [True, False], ids=["after a failure", "after it was handed back"])
async def test_newer_arguments_have_another_key_for_the_other_side_once_it_was_tried(
    database: Database, fails: bool
) -> None:
    """By the old one it would answer as to the older arguments, or refuse those that differ."""
    keyed = note.with_options(key="k")
    keys = []
    for number in (1, None, 2, None):
        if number is not None:
            await database.run(enqueue, keyed, number=number)
        [one] = await claim(database)
        keys.append(one.key)
        if fails:
            await database.run(store.fail, one, error="no", retries=9, pause=0)
        else:
            await database.run(store.hand_back, one)

    assert (keys[0] == keys[1], keys[1] == keys[2], keys[2] == keys[3]) == (True, False, True)


async def test_a_job_under_a_key_does_not_start_before_a_unit_that_wants_it_is_committed(
    database: Database, writable_database_url: str
) -> None:
    """Else it would not see what that unit changes, and nothing would tell anybody again."""
    keyed = note.with_options(key="k")
    await database.run(enqueue, keyed, number=1)
    with psycopg.connect(writable_database_url.replace("+psycopg", "")) as unit:
        unit.execute(
            "INSERT INTO job (kind, arguments, key) VALUES ('note', '{}', 'k') ON CONFLICT (kind, key)"
            " WHERE state = 'waiting' AND key IS NOT NULL DO UPDATE SET arguments = excluded.arguments"
        )
        assert await claim(database) == []
        unit.commit()

    assert len(await claim(database)) == 1


async def test_two_of_a_key_that_are_lost_at_once_leave_one(database: Database) -> None:
    keyed = note.with_options(key="k")
    for number in (1, 2):
        await database.run(enqueue, keyed, number=number)
        await claim(database, lease=0.05)
    await trio.sleep(0.1)
    await database.run(store.rescue, {}, lease=0.05)

    assert await database.read(states) == {"done": 1, "waiting": 1}
    assert numbers(await claim(database)) == [2]


async def test_what_is_enqueued_under_the_key_of_a_lost_job_and_not_committed_keeps_no_other_from_being_rescued(
    database: Database, writable_database_url: str
) -> None:
    """Until that is committed nobody knows which of the two waits. It may take as long as a request, or a job."""
    for key in ("a", "b", "c"):
        await database.run(enqueue, note.with_options(key=key), number=1)
    await claim(database, lease=0.05)
    await trio.sleep(0.1)
    with psycopg.connect(writable_database_url.replace("+psycopg", "")) as unit:
        unit.execute("INSERT INTO job (kind, arguments, key) VALUES ('note', '{}', 'b')")
        with trio.fail_after(LEASE):
            assert await rescued(database, {"note": 3}, lease=0.05) == {"note": 2}
        unit.commit()

    assert await rescued(database, {"note": 3}, lease=0.05) == {"note": 1}
    assert await database.read(states) == {"waiting": 3, "done": 1}


async def test_what_is_enqueued_under_the_key_of_a_job_keeps_no_other_from_being_handed_back(
    database: Database, writable_database_url: str
) -> None:
    """As at the end of a drain, which has two seconds for it."""
    for key in ("a", "b", "c"):
        await database.run(enqueue, note.with_options(key=key), number=1)
    a, b, c = await claim(database)
    with psycopg.connect(writable_database_url.replace("+psycopg", "")) as unit:
        unit.execute("INSERT INTO job (kind, arguments, key) VALUES ('note', '{}', 'b')")
        with trio.fail_after(LEASE):
            assert await database.run(store.hand_back_many, [a, b, c]) == ({a.id, c.id}, [b])
        unit.commit()

    assert await database.run(store.hand_back_many, [b]) == ({b.id}, [])
    assert await database.read(states) == {"waiting": 3, "done": 1}


async def test_one_more_that_is_handed_back_takes_one_statement_more(database: Database) -> None:
    """At the end of a drain there may be hundreds, and two seconds for them."""
    await database.run(enqueue_many, note, [{"number": number} for number in range(9)])
    few, many = await claim(database, most=2), await claim(database, most=7)

    def hand_back(connection: Connection, claims: list[Claimed]) -> int:
        return counted(connection, lambda: store.hand_back_many(connection, claims))

    assert await database.run(hand_back, many) == await database.run(hand_back, few) + 5


@pytest.mark.parametrize("way", ["one", "many", "unknown"])
async def test_a_commit_that_tells_others_waits_for_theirs_as_long_as_any(database: Database, way: str) -> None:
    """Where others notify, one COMMIT waits for the next, each until it is on the disk, and at the standby."""

    def hand_back(connection: Connection) -> str:
        if way == "one":
            store.hand_back(connection, one)
        elif way == "many":
            store.hand_back_many(connection, [one])
        else:
            store.hand_back_unknown(connection, [], worker="me")
        return lock_timeout(connection)

    await database.run(enqueue, note, number=1)
    (one,) = await claim(database)

    assert await database.run(hand_back) == await database.read(lock_timeout)
    assert await database.read(states) == {"waiting": 1}


def lock_timeout(connection: Connection) -> str:
    return str(connection.execute(text("SHOW lock_timeout")).scalar_one())


async def test_of_two_of_a_key_that_run_and_fail_the_newer_is_repeated(database: Database) -> None:
    """The older would stand for arguments that it does not have, and what was enqueued last would never be done."""
    keyed = note.with_options(key="k")
    running = []
    for number in (1, 2):
        await database.run(enqueue, keyed, number=number)
        running += await claim(database)
    ends = [await database.run(store.fail, one, error="no", retries=3, pause=0) for one in running]

    assert ends == ["done", "waiting"]
    assert numbers(await claim(database)) == [2]


# turns


@job(every=60)
def minutely(connection: Connection, *, turn: datetime) -> None: ...


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEPT = 60.0  # seconds


async def test_a_turn_waits_once_and_the_first_that_is_ever_seen_not_at_all(database: Database) -> None:
    for _ in range(2):
        assert await database.run(take_turn, minutely, NOON, age=KEPT)
    assert await claim(database, minutely) == []
    for _ in range(2):
        assert await database.run(take_turn, minutely, NOON + timedelta(minutes=1), age=KEPT)
    [one] = await claim(database, minutely)

    assert minutely.load(one.arguments) == {"turn": NOON + timedelta(minutes=1)}


async def test_while_a_turn_is_unfinished_no_other_comes_and_then_the_latest(database: Database) -> None:
    for minute in range(2):
        await database.run(take_turn, minutely, NOON + timedelta(minutes=minute), age=KEPT)
    claimed = await claim(database, minutely)

    assert not await database.run(take_turn, minutely, NOON + timedelta(minutes=2), age=KEPT)
    await database.run(store.finish_many, claimed)
    assert await database.run(take_turn, minutely, NOON + timedelta(minutes=5), age=KEPT)
    assert len(await claim(database, minutely)) == 1


async def test_a_schedule_that_nobody_works_for_has_missed_its_turns(database: Database) -> None:
    """None is missed while one waits or runs, and none that lies ahead of the clock, as after a step, hides one."""
    now, turns = await database.read(operators.select_now), Turns([minutely, note])
    await database.run(take_turn, minutely, now - timedelta(seconds=3_660), age=KEPT)
    missed = [await database.read(turns.missed)]
    await database.run(take_turn, minutely, now - timedelta(seconds=1_860), age=KEPT)
    missed += [await database.read(turns.missed)]
    [one] = await claim(database, minutely)
    missed += [await database.read(turns.missed)]
    await database.run(store.finish, one)
    missed += [await database.read(turns.missed)]
    await database.run(lambda connection: connection.execute(_TURN_AHEAD))
    missed += [await database.read(turns.missed)]

    assert [60 * (one["minutely"] // 60) for one in missed] == [3_600, 0, 0, 1_800, 1_800]
    assert {key for one in missed for key in one} == {"minutely"}


async def test_none_is_missed_while_an_earlier_turn_is_made_up_for(database: Database) -> None:
    """As one that was dead, and that an operator retries: the next one waits for it, whoever works."""
    now, turns = await database.read(operators.select_now), Turns([minutely])
    await database.run(take_turn, minutely, now - timedelta(seconds=7_260), age=KEPT)
    await database.run(take_turn, minutely, now - timedelta(seconds=3_660), age=KEPT)
    [earlier] = await claim(database, minutely)
    await database.run(store.fail, earlier, error="RuntimeError: away", retries=0, pause=0)
    await database.run(take_turn, minutely, now - timedelta(seconds=1_860), age=KEPT)
    [newest] = await claim(database, minutely)
    await database.run(store.finish, newest)
    await database.run(operators.retry, earlier.id)
    missed = [await database.read(turns.missed)]
    [earlier] = await claim(database, minutely)
    missed += [await database.read(turns.missed)]
    is_taken = await database.run(take_turn, minutely, now, age=KEPT)
    await database.run(store.finish, earlier)
    missed += [await database.read(turns.missed)]

    assert not is_taken
    assert [60 * (one["minutely"] // 60) for one in missed] == [0, 0, 1_800]


_TURN_AHEAD = text("""
    INSERT INTO job (kind, arguments, turn, run_at)
    SELECT 'minutely', '{}', ahead, ahead FROM (SELECT now() + interval '2 days' AS ahead)""")


@job(every=1)
def secondly(connection: Connection) -> None: ...


async def test_a_schedule_that_was_never_seen_misses_what_comes_after_the_first_look(database: Database) -> None:
    turns = Turns([secondly])
    first = await database.read(turns.missed)
    with trio.fail_after(60):
        while await database.read(turns.missed) == {"secondly": 0}:
            await trio.sleep(0.05)

    assert first == {"secondly": 0}
    assert await database.read(Turns([secondly]).missed) == {"secondly": 0}  # another replica's first look


async def test_a_turn_that_a_failover_has_lost_waits_again(one_server: OwnServer) -> None:
    """Each replica remembers which turn the table knows; the table of the server that took over may not know it."""
    settings = PlatformSettings(database_url=one_server.url)
    migrate(settings)
    statistics = JobStatistics(["minutely"])
    with trio.fail_after(60):
        async with open_database(settings) as database:
            ledger = Ledger(database, statistics, written=lambda: None, due=lambda _: None)
            kinds_here = {"minutely": minutely}
            claims = Claims(ledger, Held(1), kinds_here, statistics, worker="me", age=KEPT, begin=lambda: None)
            for minute in range(2):
                await claims._take_turns(NOON + timedelta(minutes=minute))
            one_server.stop("immediate")
            with pytest.raises(DatabaseAway):
                await claims._see(rescuing=False)
            one_server.start()
            await database.run(lambda connection: connection.execute(text("DELETE FROM job WHERE state = 'waiting'")))
            await claims._take_turns(NOON + timedelta(minutes=1))

            assert await database.read(states) == {"done": 1, "waiting": 1}


async def test_a_sweep_leaves_the_latest_turn_the_dead_and_what_is_new(database: Database) -> None:
    for minute in range(4):
        await database.run(take_turn, minutely, NOON + timedelta(minutes=minute), age=KEPT)
        await database.run(store.finish_many, await claim(database, minutely))
    await database.run(enqueue_many, note, [{"number": number} for number in range(3)])
    old, dead, _ = await claim(database)
    await database.run(store.finish, old)
    await database.run(store.fail, dead, error="no", retries=0, pause=0)
    await database.run(age)

    assert await database.run(sweep, age=KEPT) == 3  # two turns and the old one
    assert await database.read(states) == {"done": 2, "dead": 1, "running": 1}
    for minute in range(4):  # as when the clock is put back: what has run runs no more, though it is not there now
        assert await database.run(take_turn, minutely, NOON + timedelta(minutes=minute), age=KEPT)
    assert await claim(database, minutely) == []


async def test_a_clock_that_was_ahead_for_a_moment_takes_no_turn_away(database: Database) -> None:
    turns = []
    for minute in (0, 1, 60, 1, 2, 60, 2, 3):
        assert await database.run(take_turn, minutely, NOON + timedelta(minutes=minute), age=3_600)
        claimed = await claim(database, minutely)
        turns += [(minutely.load(one.arguments)["turn"] - NOON) // timedelta(minutes=1) for one in claimed]
        await database.run(store.finish_many, claimed)

    assert turns == [1, 60, 2, 3]


def age(connection: Connection) -> None:
    connection.execute(text("UPDATE job SET finished_at = finished_at - interval '1 hour' WHERE finished_at < now()"))


# operators


async def test_an_operator_retries_discards_and_runs_now(database: Database) -> None:
    later = await database.run(enqueue, note.with_options(delay=60), number=1)
    await database.run(operators.run_now, later)
    [one] = await claim(database)
    await database.run(store.fail, one, error="no", retries=0, pause=0)
    with pytest.raises(NotFound, match=f"there is no job {later} that is waiting"):
        await database.run(operators.run_now, later)
    row = await database.run(operators.retry, later)

    assert (row["state"], row["failures"]) == ("waiting", 0)
    assert (await database.run(operators.discard, later))["state"] == "discarded"
    assert (await database.run(operators.retry, later))["state"] == "waiting"
    with pytest.raises(NotFound):
        await database.run(operators.retry, later)
    with pytest.raises(NotFound, match="there is no job 99"):
        await database.read(operators.select_one, 99)


async def test_what_has_lost_its_worker_can_be_discarded_and_what_is_held_cannot(database: Database) -> None:
    """As where the one worker that there is ends by that job again and again: nobody is left to rescue it."""
    await database.run(enqueue_many, note, [{"number": 1}, {"number": 2}])
    [lost], [held] = await claim(database, most=1, lease=0.05), await claim(database, most=1)
    await trio.sleep(0.1)
    discarded = await database.run(operators.discard, lost.id)

    assert discarded["state"] == "discarded"
    with pytest.raises(ClaimLost):
        await database.run(store.finish, lost)
    with pytest.raises(NotFound, match="that is waiting or dead"):
        await database.run(operators.discard, held.id)


async def test_those_that_wait_are_discarded_in_portions_but_what_is_enqueued_meanwhile(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": number} for number in range(operators.MOST_CHANGED + 2)])
    await database.run(enqueue_many, tell, [{"number": 5}])
    await claim(database, note, most=1)
    until = await database.read(operators.select_now)
    await database.run(enqueue_many, note, [{"number": 6}])
    changed = [await database.run(operators.discard_waiting, kind="note", until=until) for _ in range(3)]

    assert changed == [operators.MOST_CHANGED, 1, 0]
    assert await database.read(states) == {"discarded": operators.MOST_CHANGED + 1, "running": 1, "waiting": 2}


async def test_workers_are_told_of_what_an_operator_makes_due(database: Database) -> None:
    """Nobody waits for the next look at the table."""
    async with database.listen(CHANNEL) as wakeups:
        heard = aiter(wakeups)
        await anext(heard)  # that it listens
        with trio.fail_after(10):
            later = await database.run(enqueue, note.with_options(delay=60), number=1)
            await anext(heard)
            await database.run(operators.run_now, later)
            await anext(heard)
            [one] = await claim(database)
            await database.run(store.fail, one, error="no", retries=0, pause=0)
            await database.run(operators.retry, later)
            await anext(heard)


async def test_one_that_somebody_enqueues_anew_is_left_by_who_discards_what_waits(
    database: Database, writable_database_url: str
) -> None:
    await database.run(enqueue, note.with_options(key="k"), number=1)
    await database.run(enqueue, note, number=2)
    until = await database.read(operators.select_now)
    with psycopg.connect(writable_database_url.replace("+psycopg", "")) as unit:
        unit.execute("UPDATE job SET arguments = '{\"number\": 3}' WHERE key = 'k'")
        changed = await database.run(operators.discard_waiting, kind="note", until=until)

    assert changed == 1
    assert numbers(await claim(database)) == [3]


async def die(database: Database, *jobs: Job[...]) -> list[int]:
    """Let jobs be dead, one after the other; return their ids."""
    ids = []
    for number, one in enumerate(jobs):
        ids.append(await database.run(enqueue, one, number=number))
        [claimed] = await claim(database, one, most=1)
        await database.run(store.fail, claimed, error="no", retries=0, pause=0)
    return ids


async def test_an_operator_retries_all_that_are_dead_of_a_kind_and_of_those_under_a_key_the_newest(
    database: Database,
) -> None:
    keyed, stood_for = note.with_options(key="a"), note.with_options(key="b")
    first, _, newest, _, other = await die(database, note, keyed, keyed, stood_for, tell)
    until = await database.read(operators.select_now)
    [late] = await die(database, note)
    waiting = await database.run(enqueue, stood_for, number=9)

    assert await database.run(operators.retry_dead, kind="note", until=until) == 2
    listed = await database.read(operators.select_some, state="waiting", kind=None, most=9, before=10**9)
    assert {row["id"] for row in listed} == {first, newest, waiting}
    assert await database.run(operators.retry_dead, kind="note", until=until) == 0
    assert await database.run(operators.discard_dead, kind="note", until=until) == 2
    assert await database.read(states) == {"waiting": 3, "discarded": 2, "dead": 2}
    assert [(await database.read(operators.select_one, one))["state"] for one in (late, other)] == ["dead", "dead"]


async def test_those_that_a_retried_one_stands_for_stay_dead_when_it_has_run_meanwhile(database: Database) -> None:
    """A kind is retried in portions; workers may end what the first has let wait before the second is looked for."""
    await die(database, note.with_options(key="a"), note.with_options(key="a"))
    until = await database.read(operators.select_now)
    first = await database.run(operators.retry_dead, kind="note", until=until)
    newest = await claim(database)
    while_it_runs = await database.run(operators.retry_dead, kind="note", until=until)
    await database.run(store.finish_many, newest)
    then = await database.run(operators.retry_dead, kind="note", until=until)

    assert (first, while_it_runs, then) == (1, 0, 0)
    assert await database.read(states) == {"done": 1, "dead": 1}


async def test_who_retries_a_kind_while_another_is_enqueued_under_its_key_is_told(
    database: Database, writable_database_url: str
) -> None:
    [dead] = await die(database, note.with_options(key="a"))
    until = await database.read(operators.select_now)

    async def retry() -> None:
        with pytest.raises(Conflict, match="another job was enqueued under the key of one of kind note; repeat it"):
            await database.run(operators.retry_dead, kind="note", until=until)

    with psycopg.connect(writable_database_url.replace("+psycopg", "")) as other:
        other.execute("INSERT INTO job (kind, arguments, key) VALUES ('note', '{}', 'a')")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(retry)
            while not await database.read(waits_for_a_lock):
                await trio.sleep(0.02)
            other.commit()

    assert (await database.read(operators.select_one, dead))["state"] == "dead"


def waits_for_a_lock(connection: Connection) -> bool:
    query = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"
    )
    return bool(connection.execute(text(query)).scalar_one())


async def test_a_dead_job_beside_a_later_one_that_runs_is_not_retried(database: Database) -> None:
    """Waiting, it would be given what is enqueued next, and end with that for the other to stand for it."""
    keyed = note.with_options(key="k")
    await database.run(enqueue, keyed, number=1)
    [old] = await claim(database)
    await database.run(store.fail, old, error="no", retries=0, pause=0)
    await database.run(enqueue, keyed, number=2)
    [new] = await claim(database)

    with pytest.raises(Conflict, match=f"a later job runs under the key of job {old.id}, and stands for it"):
        await database.run(operators.retry, old.id)
    assert await database.read(states) == {"dead": 1, "running": 1}
    await database.run(store.fail, new, error="no", retries=0, pause=0)
    assert (await database.run(operators.retry, old.id))["state"] == "waiting"


async def test_a_dead_job_that_another_stands_for_is_not_retried_and_the_operator_is_told(database: Database) -> None:
    keyed = note.with_options(key="a")
    [dead] = await die(database, keyed)
    await database.run(enqueue, keyed, number=2)

    with pytest.raises(Conflict, match=f"another job waits under the key of job {dead}"):
        await database.run(operators.retry, dead)
    assert await database.read(states) == {"waiting": 1, "dead": 1}


async def test_counts_and_lists(database: Database) -> None:
    await database.run(enqueue_many, note, [{"number": number} for number in range(3)])
    await database.run(enqueue, tell.with_options(delay=60), number=9)
    await claim(database, note, most=1)
    found = {(one.kind, one.state): (one.count, one.due) for one in await database.read(counts)}
    listed = await database.read(operators.select_some, state="waiting", kind="note", most=1, before=10**9)

    assert found == {("note", "waiting"): (2, 2), ("note", "running"): (1, 1), ("tell", "waiting"): (1, 0)}
    assert [row["state"] for row in listed] == ["waiting"]
