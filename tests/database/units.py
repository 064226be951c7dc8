"""Units of work that tests run: a table of numbers, and a query that lasts."""

from sqlalchemy import Connection, text


def create_table(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE numbers (number bigint PRIMARY KEY)"))


def insert(connection: Connection, *, number: int) -> int:
    connection.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": number})
    return number


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM numbers")).scalar_one())


def sleep(connection: Connection, seconds: float) -> None:
    connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
