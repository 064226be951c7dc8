"""Rights for the role that the service runs as, where the schema belongs to another: data, and no schema.

Given after each run of `service migrate`, also where there was nothing to do: a restored database needs them. And as
default privileges, so that no moment lies between a new table and the right to it. Tables of others are left alone.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from service.platform.database.refusals import MigrationRefused
from service.platform.database.schema import STATE_TABLE

DATA = "SELECT, INSERT, UPDATE, DELETE"
WRITES = "INSERT, UPDATE, DELETE"
NUMBERS = "USAGE, SELECT"
OURS = ("alembic_version", STATE_TABLE)  # what migrations write, and the service reads

ROLE = text("SELECT rolname = current_user FROM pg_roles WHERE rolname = :role")
RELATIONS = text("""
    SELECT relname, relkind FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = current_schema() AND relkind = ANY (:kinds) AND pg_has_role(relowner, 'USAGE')
    ORDER BY relname
""")
TABLES, SEQUENCES = "rpvmf", "S"  # as pg_class says: ordinary, partitioned, views of both kinds, foreign


def check_role(connection: Connection, role: str) -> None:
    """Raise MigrationRefused when there is no such role. Within the caller's transaction; blocks."""
    if connection.scalar(ROLE, {"role": role}) is None:
        raise MigrationRefused(f'SERVICE_MIGRATION_GRANT_TO: there is no role "{role}"')


def grant_to(connection: Connection, role: str) -> None:
    """Let a role read and write the data of this schema. Within the caller's transaction; blocks."""
    if connection.scalar(ROLE, {"role": role}):
        return  # the owner itself: a revoke would take its own rights
    for statement in _statements(connection, role):
        connection.exec_driver_sql(statement)


def _statements(connection: Connection, role: str) -> Iterator[str]:
    quote = connection.dialect.identifier_preparer.quote_identifier
    to, schema = quote(role), quote(connection.scalar(text("SELECT current_schema()")) or "public")
    if not connection.scalar(text("SELECT has_schema_privilege(:role, current_schema(), 'USAGE')"), {"role": role}):
        yield f"GRANT USAGE ON SCHEMA {schema} TO {to}"
    yield f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT {DATA} ON TABLES TO {to}"
    yield f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT {NUMBERS} ON SEQUENCES TO {to}"
    for name, kind in connection.execute(RELATIONS, {"kinds": [*TABLES, *SEQUENCES]}):
        relation = f"{schema}.{quote(name)}"
        if kind in SEQUENCES:
            yield f"GRANT {NUMBERS} ON SEQUENCE {relation} TO {to}"
        elif name in OURS:
            yield f"GRANT SELECT ON {relation} TO {to}"
            yield f"REVOKE {WRITES} ON {relation} FROM {to}"
        else:
            yield f"GRANT {DATA} ON {relation} TO {to}"
