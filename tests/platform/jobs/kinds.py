"""Jobs that only tests have, over tables that only tests have."""

import trio
from sqlalchemy import Connection, text

from service.platform.jobs import JobContext, job


def create_tables(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE effect (id bigserial PRIMARY KEY, number int NOT NULL, how text NOT NULL)"))


def effects(connection: Connection) -> list[int]:
    return list(connection.execute(text("SELECT number FROM effect ORDER BY id")).scalars())


def states(connection: Connection) -> dict[str, int]:
    return {
        row.state: row.jobs for row in connection.execute(text("SELECT state, count(*) AS jobs FROM job GROUP BY 1"))
    }


_INSERT = text("INSERT INTO effect (number, how) VALUES (:number, :how)")


@job(retries=3)
def note(connection: Connection, *, number: int, how: str = "sql") -> None:
    connection.execute(_INSERT, {"number": number, "how": how})


@job(retries=3)
async def tell(context: JobContext, *, number: int) -> None:
    await context.database.run(_note, number=number)


def _note(connection: Connection, *, number: int) -> None:
    connection.execute(_INSERT, {"number": number, "how": "async"})


@job(retries=1)
def fail(connection: Connection, *, number: int) -> None:
    connection.execute(_INSERT, {"number": number, "how": "fail"})
    raise RuntimeError(f"job {number} fails")


@job(retries=2, deadline=60)
def sleep(connection: Connection, *, number: int, seconds: float) -> None:
    connection.execute(_INSERT, {"number": number, "how": "sleep"})
    connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


@job(retries=2, deadline=60)
async def wait(context: JobContext, *, number: int, seconds: float) -> None:
    await trio.sleep(seconds)
    await context.database.run(_note, number=number)
