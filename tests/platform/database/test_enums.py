"""A migration that is written of tables with enums works: up, down and up again, and nothing is left to say."""

import enum
from collections.abc import Iterable
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.pool import NullPool
from sqlalchemy.types import TypeEngine, UserDefinedType

from service.platform.database.enums import render_item


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


class Kind(sa.TypeDecorator[str]):
    """An enum behind a type of a feature's own."""

    impl = sa.Enum("good", "it's: :b", name="Kind")
    cache_ok = True


class Kinds(sa.TypeDecorator[list[str]]):
    """An array of it, behind another."""

    impl = postgresql.ARRAY(Kind)
    cache_ok = True


class Late(sa.TypeDecorator[str]):
    """One that says what it is when it is asked."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(sa.Enum("a", name="late"))


class ByName(UserDefinedType[str]):
    """An enum that is known by its name alone."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "by_hand"


def none(_: MetaData) -> None: ...


def plain(metadata: MetaData) -> None:
    sa.Table("one", metadata, sa.Column("id", sa.BigInteger, primary_key=True))


def added(metadata: MetaData, *colours: str) -> None:
    """One enum in a table that is there, a new one, and an array; another behind a decorator; a third that is none."""
    colour = sa.Enum(*(colours or ("red", "blue")), name="colour")
    sa.Table(
        "one",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("colour", colour),
        sa.Column("told", sa.Enum(Colour, name="told", native_enum=False)),
    )
    sa.Table(
        "two",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("colours", postgresql.ARRAY(colour)),
        sa.Column("kind", Kind),
        sa.Column("kinds", Kinds),
        sa.Column("late", Late),
        sa.Column("words", sa.Enum(*Word, name="word")),
        sa.Column("here", sa.Text().with_variant(sa.Enum("a", name="here"), "postgresql")),
        sa.Column("own", postgresql.ENUM(Colour, name="own")),
    )


def widened(metadata: MetaData) -> None:
    added(metadata, "pink", "red", "green", "blue")


STEPS = (none, plain, added, widened, plain, none)


def test_each_step_goes_up_down_and_up_and_is_all_that_the_models_say(empty_database_url: str) -> None:
    with create_engine(empty_database_url, poolclass=NullPool).connect() as connection:
        for step in STEPS:
            metadata = MetaData()
            step(metadata)
            up, down = written(connection, metadata)
            for code in (up, down, up):
                run(connection, code)

            assert written(connection, metadata) == ("pass", "pass"), step.__name__
            if step is added:
                assert column_types(connection, "two")["kinds"] == '"Kind"[]'
            if step is widened:
                labels = connection.exec_driver_sql("SELECT enum_range(NULL::colour)::text").scalar_one()
                assert labels == "{pink,red,green,blue}"
        assert values(connection) == []


def test_a_value_that_the_code_knows_no_more_stays_and_a_type_of_nobody_s_is_left_alone(
    empty_database_url: str,
) -> None:
    metadata = MetaData()
    added(metadata, "blue")
    with create_engine(empty_database_url, poolclass=NullPool).connect() as connection:
        run(connection, written(connection, metadata)[0])
        for statement in ("ALTER TYPE colour ADD VALUE 'red'", "CREATE TYPE nobody AS ENUM ('a')"):
            connection.exec_driver_sql(statement)

        assert written(connection, metadata) == ("pass", "pass")


def test_a_type_is_left_alone_that_a_column_has_by_its_name_or_in_a_schema_of_its_own(empty_database_url: str) -> None:
    metadata = MetaData()
    elsewhere = postgresql.ENUM("a", name="elsewhere", schema="other")
    sa.Table("three", metadata, sa.Column("one", postgresql.ARRAY(ByName)), sa.Column("two", elsewhere))
    with create_engine(empty_database_url, poolclass=NullPool).connect() as connection:
        for statement in ("CREATE TYPE by_hand AS ENUM ('a')", "CREATE SCHEMA other"):
            connection.exec_driver_sql(statement)
        metadata.create_all(connection)

        assert written(connection, metadata) == ("pass", "pass")


def test_two_types_of_one_name_are_refused(empty_database_url: str) -> None:
    """As where two features have a class of one name: the first to be made had the values of one of them alone."""
    metadata = MetaData()
    for table, *values in (("one", "a", "b"), ("two", "a", "b"), ("three", "x")):
        sa.Table(table, metadata, sa.Column("status", sa.Enum(*values, name="status")))
    with (
        create_engine(empty_database_url, poolclass=NullPool).connect() as connection,
        pytest.raises(CommandError, match=r"one\.status and three\.status .* one name, status, .*: give one of them"),
    ):
        written(connection, metadata)


def column_types(connection: Connection, table: str) -> dict[str, str]:
    found = connection.exec_driver_sql(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = to_regclass(%s)", (table,)
    )
    return {str(name): str(told) for name, told in found}


def written(connection: Connection, metadata: MetaData) -> tuple[str, str]:
    """Return what Alembic writes into the two functions of a migration."""
    options = {"target_metadata": metadata, "render_item": render_item}
    script = produce_migrations(MigrationContext.configure(connection, opts=options), metadata)
    assert script.upgrade_ops is not None
    assert script.downgrade_ops is not None
    texts = [render_python_code(ops, render_item=render_item) for ops in (script.upgrade_ops, script.downgrade_ops)]
    up, down = ("\n".join(line.strip() for line in text.splitlines() if "###" not in line) for text in texts)
    return up, down


def run(connection: Connection, code: str) -> None:
    operations = Operations(MigrationContext.configure(connection))
    exec(code, {"op": operations, "sa": sa, "postgresql": postgresql})  # noqa: S102  as Alembic does with its file
    connection.commit()


def values(connection: Connection) -> list[Any]:
    found: Iterable[Any] = connection.exec_driver_sql("SELECT typname FROM pg_type WHERE typtype = 'e'")
    return [name for (name,) in found]
