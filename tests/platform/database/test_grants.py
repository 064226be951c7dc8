"""The schema's owner apart from the service's user: `service migrate` grants what the service needs, and no more.

On a real server with two roles that are no superusers.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import trio
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from service.platform.database import MigrationRefused
from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.processes import ready, run_to_end
from tests.platform.database.migrations import make_release, write_migration

_numbers = itertools.count()


@dataclass(frozen=True)
class Two:
    """A database, as its owner and as its user see it."""

    owner: str
    user: str
    role: str

    def as_user(self, *statements: str) -> None:
        with connect(self.user) as connection:
            for statement in statements:
                connection.execute(statement.encode())


def connect(url: str) -> psycopg.Connection:
    where = make_url(url)
    parameters = where.translate_connect_args(username="user", database="dbname") | dict(where.query)
    return psycopg.connect(make_conninfo("", **parameters), autocommit=True)


@pytest.fixture
def two(empty_database_url: str) -> Iterator[Two]:
    number = next(_numbers)
    owner, user = f"owner {number}", f"User-{number}"  # names that need quotes
    url = make_url(empty_database_url)
    roles = [sql.Identifier(name) for name in (owner, user)]
    with connect(empty_database_url) as connection:
        for role in roles:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(url.database or ""), roles[0])
        )
        urls = [url.set(username=name).render_as_string(hide_password=False) for name in (owner, user)]
        yield Two(urls[0], urls[1], role=user)
        connection.execute(sql.SQL("REASSIGN OWNED BY {} TO postgres").format(roles[0]))
        for role in roles:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        for role in roles:
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.fixture
def owner_settings(two: Two, make_settings: MakeSettings) -> PlatformSettings:
    return make_settings(database_url=SecretStr(two.owner), migration_grant_to=two.role)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return make_release(tmp_path, "one")


async def test_the_service_runs_as_a_user_that_owns_nothing(tmp_path: Path, two: Two) -> None:
    migrated = await trio.to_thread.run_sync(
        lambda: run_to_end(tmp_path, "migrate", database_url=two.owner, migration_grant_to=two.role)
    )
    assert migrated.returncode == 0, migrated.stderr
    async with ready(tmp_path, "serve", database_url=two.user) as service:
        smoke = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, "smoke", service.public, "--replicas", "1"))
        check = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, "check", database_url=two.user))
        refused = [line for line in service.events() if "permission denied" in str(line)]

    assert (smoke.returncode, check.returncode) == (0, 0), smoke.stderr + check.stdout
    assert refused == []


def test_what_the_next_release_adds_is_the_users_too(
    two: Two, owner_settings: PlatformSettings, first: Path, tmp_path: Path
) -> None:
    migrate(owner_settings, migrations=first)
    following = make_release(tmp_path, "two")
    table = "CREATE TABLE next_release (id bigserial PRIMARY KEY, word text)"
    write_migration(following, "next", "two", serves_from="one", up=table)

    migrate(owner_settings, migrations=following)

    two.as_user(
        "INSERT INTO notes (title) VALUES ('a')",
        "INSERT INTO next_release (word) VALUES ('a')",
        "UPDATE next_release SET word = 'b'",
        "SELECT * FROM next_release",
        "DELETE FROM next_release",
    )


def test_a_table_that_is_made_otherwise_has_default_rights(
    two: Two, owner_settings: PlatformSettings, first: Path
) -> None:
    migrate(owner_settings, migrations=first)
    with connect(two.owner) as connection:
        connection.execute("CREATE TABLE by_hand (id serial PRIMARY KEY)")

    two.as_user("INSERT INTO by_hand DEFAULT VALUES", "DELETE FROM by_hand")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE a (b int)",
        "UPDATE alembic_version SET version_num = 'a'",
        "DELETE FROM schema_state",
        "DROP TABLE alembic_version",
        "TRUNCATE schema_state",
    ],
)
def test_the_user_changes_no_schema(two: Two, owner_settings: PlatformSettings, first: Path, statement: str) -> None:
    migrate(owner_settings, migrations=first)

    with pytest.raises(errors.InsufficientPrivilege):
        two.as_user(statement)


def test_rights_are_given_where_there_is_nothing_to_migrate(
    two: Two, owner_settings: PlatformSettings, first: Path, make_settings: MakeSettings
) -> None:
    """A database from before the setting was made, and a restored one, get them at the next run."""
    migrate(make_settings(database_url=SecretStr(two.owner)), migrations=first)
    with pytest.raises(errors.InsufficientPrivilege):
        two.as_user("SELECT * FROM alembic_version")

    done = migrate(owner_settings, migrations=first)

    assert done.applied == ()
    two.as_user("SELECT * FROM alembic_version")


def test_a_role_that_is_not_there_is_refused_before_anything_is_applied(
    two: Two, first: Path, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=SecretStr(two.owner), migration_grant_to="nobody")

    with pytest.raises(MigrationRefused, match='SERVICE_MIGRATION_GRANT_TO: there is no role "nobody"'):
        migrate(settings, migrations=first)

    with connect(two.owner) as connection:
        assert connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,)


def test_tables_of_others_in_the_schema_are_left_alone(
    two: Two, owner_settings: PlatformSettings, first: Path, empty_database_url: str
) -> None:
    with connect(empty_database_url) as superuser:
        superuser.execute("CREATE TABLE of_an_extension (a int)")

    migrate(owner_settings, migrations=first)

    with pytest.raises(errors.InsufficientPrivilege):
        two.as_user("SELECT * FROM of_an_extension")


def test_a_user_that_owns_the_schema_needs_no_grant(two: Two, first: Path, make_settings: MakeSettings) -> None:
    """One role for both, named all the same."""
    name = make_url(two.owner).username
    settings = make_settings(database_url=SecretStr(two.owner), migration_grant_to=name)

    migrate(settings, migrations=first)

    with connect(two.owner) as connection:
        connection.execute("UPDATE alembic_version SET version_num = version_num")
