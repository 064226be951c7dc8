"""Errors of units: collisions are retried, what PostgreSQL refuses stays refused, and units keep to their side."""

import traceback
from collections.abc import Callable

import psycopg
import pytest
import structlog.testing
import trio
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from service.platform.database import Outcome, metadata, open_database
from service.platform.database.work import Aborted
from service.platform.errors import Busy, Unavailable
from service.platform.testing.fixtures import MakeSettings
from tests.platform.database.observer import observe
from tests.platform.database.units import count, create_table, insert, select_numbers, select_one, sleep

DEFERRED = "ALTER TABLE numbers ADD twin bigint REFERENCES numbers DEFERRABLE INITIALLY DEFERRED"


def add_serializably(connection: Connection, pause: float) -> None:
    """Insert the sum of what is there: two at once cannot both be right."""
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    seen = connection.execute(text("SELECT coalesce(max(number), 0) FROM numbers")).scalar_one()
    sleep(connection, pause)
    insert(connection, number=seen + 1)


async def test_serialization_failures_are_retried(make_settings: MakeSettings) -> None:
    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(database.run, add_serializably, 0.02)

            assert await database.read(select_numbers) == {1, 2, 3, 4}
            assert database.statistics().retried >= 1


async def test_deadlocks_are_retried(make_settings: MakeSettings) -> None:
    def lock_both(connection: Connection, first: int, second: int) -> None:
        for number in (first, second):
            connection.execute(text("UPDATE numbers SET number = number WHERE number = :number"), {"number": number})
            sleep(connection, 0.1)

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            await database.run(insert, number=1)
            await database.run(insert, number=2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.run, lock_both, 1, 2)
                nursery.start_soon(database.run, lock_both, 2, 1)

            assert database.statistics().retried >= 1


async def test_a_unit_that_collides_for_ever_is_busy_and_one_with_a_deadline_is_cancelled(
    make_settings: MakeSettings,
) -> None:
    def collide(connection: Connection) -> None:
        connection.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION 'always' USING ERRCODE = '40001'; END $$")

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            with pytest.raises(Busy, match="collided with others 10 times"):
                await database.run(collide)
            with trio.move_on_after(0.02) as scope:
                await database.run(collide)

            assert scope.cancelled_caught


@pytest.mark.parametrize("alteration", ["ADD name text", "ALTER number TYPE numeric"])
@pytest.mark.parametrize("writes", [True, False], ids=["run", "read"])
async def test_a_statement_that_was_prepared_before_a_migration_is_prepared_anew_unseen(
    make_settings: MakeSettings, database_url: str, alteration: str, writes: bool
) -> None:
    """PostgreSQL refuses it once on each connection that has it: cached plan must not change result type."""

    def select(connection: Connection) -> int:
        return len(connection.execute(text("SELECT * FROM numbers")).all())

    with trio.fail_after(30), observe(database_url) as migration:
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            do = database.run if writes else database.read
            for _ in range(10):  # by then the driver has prepared it
                await do(select)
            migration.connection.execute(f"ALTER TABLE numbers {alteration}".encode())

            assert await do(select) == await do(select) == 0
            assert database.statistics().lines_replaced == 1


async def test_a_deferred_constraint_that_fails_at_commit_is_an_ordinary_error(make_settings: MakeSettings) -> None:
    def insert_orphan(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO numbers VALUES (1, 99)")

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            await database.run(lambda connection: connection.exec_driver_sql(DEFERRED).close())

            with pytest.raises(IntegrityError, match="foreign key"):
                await database.run(insert_orphan)
            assert await database.read(count) == 0
            assert database.statistics().units[Outcome.UNKNOWN] == 0


async def test_a_unit_that_goes_on_after_a_failed_statement_is_not_taken_for_committed(
    make_settings: MakeSettings,
) -> None:
    """PostgreSQL answers its COMMIT with ROLLBACK, and no error."""

    def swallow(connection: Connection) -> str:
        insert(connection, number=1)
        try:
            insert(connection, number=1)
        except IntegrityError:
            return "went on"
        return "no conflict"

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            with pytest.raises(Aborted):
                await database.run(swallow)
            assert await database.read(count) == 0


async def test_a_savepoint_lets_a_unit_go_on(make_settings: MakeSettings) -> None:
    def insert_or_skip(connection: Connection) -> str:
        insert(connection, number=1)
        try:
            with connection.begin_nested():
                insert(connection, number=1)
        except IntegrityError:
            return "skipped"
        return "inserted"

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            assert await database.run(insert_or_skip) == "skipped"
            assert await database.read(count) == 1


@pytest.mark.parametrize("verb", ["commit", "rollback"])
async def test_a_unit_neither_commits_nor_rolls_back(make_settings: MakeSettings, verb: str) -> None:
    def take_over(connection: Connection) -> None:
        insert(connection, number=1)
        getattr(connection, verb)()

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            with pytest.raises(RuntimeError, match="a unit of work does not"):
                await database.run(take_over)
            assert await database.read(count) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "ROLLBACK", "COMMIT", "ABORT", "end", "ROLLBACK AND CHAIN", " \n commit work and chain", "COMMIT; BEGIN",
        "PREPARE TRANSACTION 'one'",
    ],
)  # fmt: skip
async def test_a_statement_that_ends_the_transaction_of_its_unit_is_refused_before_it_is_sent(
    make_settings: MakeSettings, statement: str
) -> None:
    """After one with AND CHAIN PostgreSQL is in a transaction again, and nothing tells that it is another."""

    def take_over(connection: Connection) -> None:
        insert(connection, number=1)
        connection.execute(text(statement))

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            with pytest.raises(RuntimeError, match="a unit of work ends no transaction: it is one"):
                await database.run(take_over)
            assert await database.read(count) == 0


async def test_a_transaction_that_is_ended_past_sqlalchemy_is_not_taken_for_committed(
    make_settings: MakeSettings,
) -> None:
    """PostgreSQL answers the COMMIT that follows with COMMIT, and a warning."""

    def take_over(connection: Connection) -> None:
        insert(connection, number=1)
        connection.exec_driver_sql("/* of somebody's own */ ROLLBACK")

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            with pytest.raises(RuntimeError, match="a unit of work ends no transaction: it is one"):
                await database.run(take_over)
            assert await database.read(count) == 0


async def test_a_part_of_a_unit_may_be_undone_by_a_savepoint_of_its_own(make_settings: MakeSettings) -> None:
    def undo_a_part(connection: Connection) -> None:
        insert(connection, number=1)
        for statement in ("SAVEPOINT part", "ROLLBACK TO part", "ROLLBACK WORK TO SAVEPOINT part", "RELEASE part"):
            connection.execute(text(statement))

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            await database.run(undo_a_part)

            assert await database.read(count) == 1


async def test_options_of_one_unit_do_not_reach_the_next(make_settings: MakeSettings) -> None:
    def set_option(connection: Connection) -> None:
        connection.execution_options(schema_translate_map={None: "nowhere"})

    with trio.fail_after(30):
        async with open_database(make_settings(database_connections=1)) as database:
            await database.run(set_option)

            assert await database.read(lambda connection: dict(connection.get_execution_options())) == {}


async def test_the_orm_works_inside_a_unit(make_settings: MakeSettings) -> None:
    class Base(DeclarativeBase):
        pass

    class Number(Base):
        __tablename__ = "numbers"
        number: Mapped[int] = mapped_column(primary_key=True)

    def insert_two(connection: Connection) -> None:
        with Session(connection) as session:
            session.add_all([Number(number=1), Number(number=2)])
            session.flush()

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            await database.run(insert_two)

            assert await database.read(select_numbers) == {1, 2}


SECRET = "ada@example.org"
TABLE = """
CREATE TABLE people (
    email text PRIMARY KEY CHECK (position('!' in email) = 0), age int NOT NULL DEFAULT 0,
    twin text REFERENCES people DEFERRABLE INITIALLY DEFERRED)
"""


def add(connection: Connection, email: str = SECRET, age: object = 0, twin: str | None = None) -> None:
    values = {"email": email, "age": age, "twin": twin}
    connection.execute(text("INSERT INTO people VALUES (:email, :age, :twin)"), values)


def wrap(connection: Connection) -> None:
    try:
        add(connection)
    except IntegrityError:
        raise LookupError("ours")  # noqa: B904  what it was raised during is shown as well


def add_past_sqlalchemy(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    driver.execute("INSERT INTO people VALUES (%s)", [SECRET])


def add_each(connection: Connection) -> None:
    refused = []
    for email in (SECRET, SECRET):
        try:
            with connection.begin_nested():
                add(connection, email)
        except IntegrityError as error:
            refused.append(error)
    raise ExceptionGroup("rows were refused", refused)


REVEALING: dict[str, Callable[[Connection], object]] = {
    "duplicate key": add,
    "duplicate key, to the driver": add_past_sqlalchemy,
    "duplicate key, behind another error": wrap,
    "duplicate keys, in a group": add_each,
    "check": lambda connection: add(connection, SECRET + "!"),
    "not null": lambda connection: add(connection, SECRET + "?", None),
    "not a number": lambda connection: connection.execute(text("SELECT CAST(:email AS int)"), {"email": SECRET}),
    "foreign key at COMMIT": lambda connection: add(connection, "other", 0, SECRET + "?"),
    "parameters": lambda connection: connection.execute(text("SELECT 1/:no, :email"), {"no": 0, "email": SECRET}),
}


async def test_values_are_not_in_what_is_logged_of_an_error(make_settings: MakeSettings) -> None:
    logged: dict[str, str] = {}
    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(lambda connection: connection.exec_driver_sql(TABLE).close())
            await database.run(add)
            for name, unit in REVEALING.items():
                try:
                    await database.run(unit)
                except Exception as error:
                    logged[name] = "".join(traceback.format_exception(error))

    assert logged.keys() == REVEALING.keys()
    for name, words in logged.items():
        assert SECRET not in words, name
        assert "SQLSTATE" in words, name


async def test_code_may_still_decide_by_what_an_error_says(make_settings: MakeSettings) -> None:
    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            await database.run(insert, number=7)
            with pytest.raises(IntegrityError, match=r"violates unique constraint \"numbers_pkey\"") as failed:
                await database.run(insert, number=7)

    assert isinstance(failed.value.orig, psycopg.errors.UniqueViolation)
    assert failed.value.orig.diag.constraint_name == "numbers_pkey"
    assert failed.value.orig.diag.message_detail == "Key (number)=(7) already exists."


async def test_a_slow_unit_is_logged_by_its_name_and_without_values(make_settings: MakeSettings) -> None:
    with trio.fail_after(30), structlog.testing.capture_logs() as logged:
        async with open_database(make_settings(database_slow_unit=0.05)) as database:
            await database.run(sleep, 0.1)
            await database.run(select_one)

    slow = [line for line in logged if line["event"] == "slow unit"]
    assert [(line["unit"], line["log_level"], line["outcome"]) for line in slow] == [("sleep", "warning", "committed")]
    assert 0.1 <= slow[0]["seconds"] < 5


async def test_an_observer_hears_of_every_unit(make_settings: MakeSettings) -> None:
    heard: list[tuple[str, Outcome]] = []
    with trio.fail_after(30):
        async with open_database(
            make_settings(database_connections=1, database_queue_wait=0),
            on_unit=lambda name, outcome, seconds: heard.append((name, outcome)),
        ) as database:
            await database.run(select_one)
            await database.read(select_one)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.run, sleep, 30)
                await trio.sleep(0.1)
                with pytest.raises(Busy):
                    await database.run(select_one)
                nursery.cancel_scope.cancel()

    assert heard == [
        ("select_one", Outcome.COMMITTED),
        ("select_one", Outcome.READ),
        ("select_one", Outcome.BUSY),
        ("sleep", Outcome.CANCELLED),
    ]


def test_what_a_client_may_repeat_is_unavailable() -> None:
    assert issubclass(Busy, Unavailable)
    assert metadata.naming_convention["pk"] == "pk_%(table_name)s"
