"""Units of work that tests run: a table of numbers, and queries that last."""

from collections.abc import Awaitable, Callable

from sqlalchemy import Connection, text

from service.platform.database import Database, Statement

SLOW_COMMIT = """
CREATE FUNCTION wait_a_while() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM {wait}; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON numbers
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_a_while()
"""


INSERT = Statement("insert", "INSERT INTO numbers VALUES ($1) RETURNING number")
INSERT_AND_SLEEP = Statement(
    "insert_and_sleep", "INSERT INTO numbers SELECT $1::bigint FROM (SELECT pg_sleep($2::float8)) AS slept"
)


def create_table(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE numbers (number bigint PRIMARY KEY)"))


def make_commits_slow(connection: Connection, *, seconds: float) -> None:
    connection.exec_driver_sql(SLOW_COMMIT.format(wait=f"pg_sleep({seconds})"))


def make_commits_wait(connection: Connection) -> None:
    """Let each COMMIT wait until nobody has the advisory lock 1."""
    connection.exec_driver_sql(SLOW_COMMIT.format(wait="pg_advisory_xact_lock(1)"))


def insert(connection: Connection, *, number: int) -> int:
    connection.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": number})
    return number


def insert_and_sleep(connection: Connection, *, number: int, sleeps: int = 1, seconds: float = 0) -> int:
    insert(connection, number=number)
    for _ in range(sleeps):
        sleep(connection, seconds)
    return number


def select_numbers(connection: Connection) -> set[int]:
    return set(connection.execute(text("SELECT number FROM numbers")).scalars())


def count(connection: Connection) -> int:
    return len(select_numbers(connection))


def select_one(connection: Connection) -> int:
    return int(connection.execute(text("SELECT 1")).scalar_one())


def sleep(connection: Connection, seconds: float) -> None:
    connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


def notify(connection: Connection, *, channel: str, payload: str) -> None:
    connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


async def store_on_a_thread(database: Database, number: int) -> int:
    return await database.run(insert, number=number)


async def store_by_a_statement(database: Database, number: int) -> int:
    [(stored,)] = await database.execute(INSERT, number)
    return int(stored)


type Store = Callable[[Database, int], Awaitable[int]]
WAYS = store_on_a_thread, store_by_a_statement  # of a unit that inserts a number: both guarantee the same
