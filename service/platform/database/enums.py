"""PostgreSQL's enums in migrations: Alembic compares the tables, and neither makes nor drops the types that they need.

Each type has a statement of its own, ahead of what uses it or after it, and so no table or column makes one: two may
use the same. A value that the code knows no more stays, as PostgreSQL takes none away. Imported by who compares.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import ExecuteSQLOp, MigrateOperation, UpgradeOps
from alembic.util import CommandError, DispatchPriority, PriorityDispatchResult
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.engine import Dialect
from sqlalchemy.types import UserDefinedType

THERE = sa.text("""
    SELECT typname, array_agg(enumlabel ORDER BY enumsortorder), EXISTS (
        SELECT FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE atttypid IN (pg_type.oid, typarray) AND relkind IN ('r', 'p') AND NOT attisdropped)
    FROM pg_type JOIN pg_enum ON enumtypid = pg_type.oid WHERE pg_type_is_visible(pg_type.oid) GROUP BY pg_type.oid""")

DIALECT: Dialect = PGDialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own lacks it
quote = DIALECT.identifier_preparer.quote


class EnumOp(ExecuteSQLOp):
    """A statement and the one that takes it back, if there is one."""

    def __init__(self, statement: str | None, back: str | None) -> None:
        super().__init__(statement or "")
        self.statement, self.back = statement, back

    def reverse(self) -> MigrateOperation:
        return EnumOp(self.back, self.statement)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("enum", self.statement)


@renderers.dispatch_for(EnumOp)
def render_statement(_: AutogenContext, op: EnumOp) -> list[str]:
    return [] if op.statement is None else [f"op.execute({op.statement!r})"]


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Write a column's enum, or an array's, as one that is there; False leaves anything else to Alembic."""
    if kind != "type" or (found := enum_of(item)) is None:
        return False
    context.imports.add("from sqlalchemy.dialects import postgresql")
    values = ", ".join(repr(str(value)) for value in found.enums)
    told = f"postgresql.ENUM({values}, name={found.name!r}, create_type=False)"
    return f"postgresql.ARRAY({told})" if any(isinstance(layer, sa.ARRAY) for layer in layers(item)) else told


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST, qualifier="postgresql")
def compare_enums(context: AutogenContext, upgrade: UpgradeOps, _: object) -> PriorityDispatchResult:
    """Add what makes the enums those of the metadata, around what the tables need."""
    if context.connection is None or context.metadata is None:
        return PriorityDispatchResult.CONTINUE  # nothing to compare
    found = {name: (values, used) for name, values, used in context.connection.execute(THERE)}
    there = {name: values for name, (values, _) in found.items()}
    metadata: Any = context.metadata  # one, as migrations/env.py gives it
    columns = [column for table in metadata.tables.values() for column in table.columns]
    wanted, named = enums(columns), names(columns)
    upgrade.ops[:0] = [*made(wanted, there), *widened(wanted, there)]
    # One that no column has is not ours to drop: a function's, or an extension's.
    upgrade.ops += [
        EnumOp(*reversed(both(name, values)))
        for name, (values, used) in found.items()
        if used and name not in wanted and quote(name) not in named
    ]
    return PriorityDispatchResult.CONTINUE


def enums(columns: Iterable[sa.Column[Any]]) -> dict[str, Sequence[str]]:
    """Return each enum that a column has, by name, with its values. Raises CommandError where two have one name."""
    first: dict[str, tuple[sa.Column[Any], Sequence[str]]] = {}
    for column in columns:
        if (found := enum_of(column.type)) is None:
            continue
        other, values = first.setdefault(str(found.name), (column, found.enums))
        if set(values) != set(found.enums):
            what = f"{other} and {column} have enums of one name, {found.name}, with other values"
            raise CommandError(f"{what}: give one of them another, as Enum(..., name=...)")
    return {name: values for name, (_, values) in first.items()}


def names(columns: Iterable[sa.Column[Any]]) -> set[str]:
    """Return the types that a column has by a name alone, which may be an enum's."""
    last = ([*layers(column.type)][-1] for column in columns)
    return {kind.compile(DIALECT) for kind in last if isinstance(kind, UserDefinedType)}


def enum_of(kind: sa.types.TypeEngine[Any]) -> sa.Enum | None:
    """Return the enum of PostgreSQL's that a column's type is, or is made of; one in a schema is left to Alembic."""
    [*_, last] = layers(kind)
    return last if isinstance(last, sa.Enum) and last.native_enum and last.schema is None else None


def layers(kind: sa.types.TypeEngine[Any]) -> Iterator[sa.types.TypeEngine[Any]]:
    """Yield what a type is to PostgreSQL, and what that is made of."""
    while True:
        kind = kind.dialect_impl(DIALECT)
        yield kind
        if isinstance(kind, sa.ARRAY):
            kind = kind.item_type
        elif isinstance(kind, sa.TypeDecorator):
            kind = kind.impl_instance
        else:
            return


def made(wanted: Mapping[str, Sequence[str]], there: Mapping[str, Sequence[str]]) -> Iterator[EnumOp]:
    for name, values in wanted.items():
        if name not in there:
            yield EnumOp(*both(name, values))


def widened(wanted: Mapping[str, Sequence[str]], there: Mapping[str, Sequence[str]]) -> Iterator[EnumOp]:
    """Yield what adds a value, beside its neighbour, so that the order is the code's; it may have stayed."""
    for name, values in wanted.items():
        for number, value in enumerate(values):
            if name in there and value not in there[name]:
                place = f"AFTER {literal(values[number - 1])}" if number else f"BEFORE {literal(there[name][0])}"
                yield EnumOp(f"ALTER TYPE {quote(name)} ADD VALUE IF NOT EXISTS {literal(value)} {place}", None)


def both(name: str, values: Sequence[str]) -> tuple[str, str]:
    """Return what makes a type, and what drops it."""
    listed = ", ".join(literal(value) for value in values)
    return f"CREATE TYPE {quote(name)} AS ENUM ({listed})", f"DROP TYPE {quote(name)}"


def literal(value: str) -> str:
    """Return a text as SQL has it, in which `op.execute` is to find no parameter."""
    return "'" + value.replace("'", "''").replace(":", r"\:") + "'"
