"""Schema states, and releases against each other: install, upgrade, roll back, upgrade again; breaking ones refused."""

import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import trio
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from service.platform.database import CodeSchema, MigrationRefused, SchemaState, ServerAway, open_database
from service.platform.database.migrate import configure, migrate
from service.platform.database.progress import MigrationFailed
from service.platform.database.schema import decide
from service.platform.settings import PlatformSettings
from tests.platform.database.migrations import Release, make_release, write_migration
from tests.platform.database.observer import conninfo

AT, BEHIND = SchemaState.AT, SchemaState.BEHIND
COMPATIBLE, INCOMPATIBLE = SchemaState.AHEAD_COMPATIBLE, SchemaState.AHEAD_INCOMPATIBLE


@dataclass(frozen=True)
class Standing:
    """The database's revision and serves_from, against code whose head is `two` after `one`."""

    revision: str | None
    serves_from: str | None
    state: SchemaState
    applied: frozenset[str] | None = None  # nothing: written by a version that did not say


@pytest.mark.parametrize(
    "standing",
    [
        Standing("two", "one", AT),
        Standing("two", "two", AT),
        Standing("one", "one", BEHIND),
        Standing(None, None, BEHIND),
        Standing("three", "one", COMPATIBLE),
        Standing("three", "two", COMPATIBLE),
        Standing("three", "three", INCOMPATIBLE),
        Standing("elsewhere", None, INCOMPATIBLE),
        Standing("three", "one", COMPATIBLE, frozenset({"one", "two", "three"})),
        Standing("three", "three", INCOMPATIBLE, frozenset({"one", "two", "three"})),
        Standing("elsewhere", "one", INCOMPATIBLE, frozenset({"one", "elsewhere"})),
    ],
    ids=lambda standing: f"{standing.revision}-{standing.serves_from}-{','.join(sorted(standing.applied or ()))}",
)
def test_the_state_of_a_schema(standing: Standing) -> None:
    code = CodeSchema("two", frozenset({"one", "two"}))

    assert decide(code, standing.revision, standing.serves_from, standing.applied) is standing.state
    assert standing.state.served is (standing.state in {AT, COMPATIBLE})


def test_code_without_migrations_needs_nothing() -> None:
    code = CodeSchema(None, frozenset())

    assert decide(code, None, None) is AT
    assert decide(code, "one", "one") is COMPATIBLE
    assert decide(code, "one", "one", frozenset({"one"})) is COMPATIBLE


@pytest.fixture
def settings(empty_database_url: str) -> PlatformSettings:
    return PlatformSettings(database_url=empty_database_url)


async def state_for(settings: PlatformSettings, code: Path) -> SchemaState | None:
    async with open_database(settings, migrations=code) as database:
        return (await database.look()).schema


async def test_install_upgrade_roll_back_upgrade_again(settings: PlatformSettings, release: Release) -> None:
    old, new = release("one"), release("two")
    with trio.fail_after(30):
        assert migrate(settings, migrations=old).line == "migrated from nothing to one"  # install
        assert await state_for(settings, new) is BEHIND, "the new code waits"
        upgraded = migrate(settings, migrations=new)
        assert (upgraded.before, upgraded.after, upgraded.applied) == ("one", "two", ("two",))
        assert await state_for(settings, old) is COMPATIBLE, "old replicas go on during the rollout"
        back = migrate(settings, migrations=old)  # what the old release's job does at a rollback
        assert back.applied == ()
        assert back.line.startswith("nothing to do: the schema is at two, newer than this code's one")
        assert await state_for(settings, old) is COMPATIBLE
        again = migrate(settings, migrations=new)

        assert again.line == "nothing to do: the schema is at two"
        assert await state_for(settings, new) is AT


async def test_old_code_works_on_a_newer_schema_that_serves_it(settings: PlatformSettings, release: Release) -> None:
    def old_insert(connection: Connection) -> None:
        connection.execute(text("INSERT INTO notes (body) VALUES ('as ever')"))

    migrate(settings, migrations=release("one"))
    with trio.fail_after(30):
        async with open_database(settings, migrations=release("one")) as database:
            await database.run(old_insert)
            migrate(settings, migrations=release("two"))  # while it runs
            await database.run(old_insert)
            await database.look()

            assert database.condition.schema is COMPATIBLE


async def test_a_breaking_migration_is_refused_unless_asked_for(settings: PlatformSettings, release: Release) -> None:
    migrate(settings, migrations=release("two"))
    with trio.fail_after(30):
        with pytest.raises(MigrationRefused, match=r"three stops serving .*: notes.body is gone; .*--breaking"):
            migrate(settings, migrations=release("three"))
        assert await state_for(settings, release("two")) is AT, "nothing of it is applied"

        assert migrate(settings, migrations=release("three"), breaking=True).applied == ("three",)
        assert await state_for(settings, release("one")) is INCOMPATIBLE
        assert await state_for(settings, release("two")) is COMPATIBLE


def test_old_code_is_told_that_the_schema_does_not_serve_it(settings: PlatformSettings, release: Release) -> None:
    migrate(settings, migrations=release("three"))

    with pytest.raises(MigrationRefused, match="serves code from two on, which this code, one, does not know"):
        migrate(settings, migrations=release("one"))


async def test_code_of_another_branch_is_not_served(
    settings: PlatformSettings, release: Release, tmp_path: Path
) -> None:
    """As in a team whose branches share a database: each adds to what both know, and neither has the other's table."""
    common, ours, theirs = (
        release("one"),
        make_release(tmp_path / "ours", "one"),
        make_release(tmp_path / "theirs", "one"),
    )
    write_migration(ours, "ours", "one", serves_from="one", up="CREATE TABLE ours (x int)")
    write_migration(theirs, "theirs", "one", serves_from="one", up="CREATE TABLE theirs (x int)")
    migrate(settings, migrations=theirs)

    with trio.fail_after(30):
        assert await state_for(settings, ours) is INCOMPATIBLE
        with pytest.raises(
            MigrationRefused, match="is at theirs, where ours, which this code needs, was never applied"
        ):
            migrate(settings, migrations=ours)
        assert await state_for(settings, common) is COMPATIBLE, "what both stand on is served"


@pytest.mark.parametrize("lost", ["SET applied = NULL", "RENAME applied TO something_else"])
async def test_what_an_older_version_left_is_read_and_completed(
    settings: PlatformSettings, release: Release, lost: str
) -> None:
    """Its migrations say nothing of what was applied before, which is no reason to refuse the code that runs."""
    ours, old = release("two"), release("one")
    migrate(settings, migrations=old)
    verb = "UPDATE" if lost.startswith("SET") else "ALTER TABLE"
    with psycopg.connect(conninfo(url_of(settings))) as connection:
        connection.execute(f"{verb} schema_state {lost}")

    with trio.fail_after(30):
        assert await state_for(settings, old) is AT
        assert await state_for(settings, ours) is BEHIND
        migrate(settings, migrations=ours)
        assert await state_for(settings, old) is COMPATIBLE
    with psycopg.connect(conninfo(url_of(settings))) as connection:
        assert connection.execute("SELECT applied FROM schema_state").fetchone() == (["one", "two"],)


def test_a_new_database_takes_breaking_migrations_as_they_are(settings: PlatformSettings, release: Release) -> None:
    assert migrate(settings, migrations=release("three")).applied == ("one", "two", "three")


def test_a_migration_that_breaks_in_silence_is_refused(settings: PlatformSettings, release: Release) -> None:
    code = release("two")
    migrate(settings, migrations=code)
    write_migration(code, "four", "two", serves_from="four")

    with pytest.raises(MigrationRefused, match="four stops serving two and does not say `breaking`: its serves_from"):
        migrate(settings, migrations=code)
    assert migrate(settings, migrations=code, breaking=True).applied == ("four",), "there is a way on"


def test_serves_from_never_moves_back(settings: PlatformSettings, release: Release) -> None:
    code = release("three")
    migrate(settings, migrations=code)
    write_migration(code, "four", "three", serves_from="one")

    with pytest.raises(MigrationRefused, match="goes back from two to one"):
        migrate(settings, migrations=code)
    with psycopg.connect(conninfo(url_of(settings))) as connection:
        assert connection.execute("SELECT revision, serves_from FROM schema_state").fetchall() == [("three", "two")]


def test_a_migration_has_to_say_what_it_serves(settings: PlatformSettings, release: Release) -> None:
    code = release("one")
    write_migration(code, "two", "one", serves_from=None)

    with pytest.raises(MigrationRefused, match="two: `serves_from` must be"):
        migrate(settings, migrations=code)


def test_the_name_of_a_file_in_place_of_its_revision_is_told(settings: PlatformSettings, release: Release) -> None:
    code = release("one")
    (code / "versions" / "one.py").rename(code / "versions" / "one_add_notes.py")
    write_migration(code, "two", "one", serves_from="add_notes")

    with pytest.raises(MigrationRefused, match="it is 'add_notes', which is how the file of 'one' is named"):
        migrate(settings, migrations=code)


def test_a_failed_migration_leaves_those_before_it(settings: PlatformSettings, release: Release) -> None:
    code = release("one")
    write_migration(code, "two", "one", serves_from="one", up="ALTER TABLE nothing ADD x int")

    with pytest.raises(MigrationFailed) as failed:
        migrate(settings, migrations=code)
    assert str(failed.value) == (
        'migration two failed: ALTER TABLE nothing ADD x int: relation "nothing" does not exist (SQLSTATE 42P01)'
    )

    with psycopg.connect(conninfo(url_of(settings))) as connection:
        assert connection.execute("SELECT revision, serves_from FROM schema_state").fetchall() == [("one", "one")]


@pytest.mark.parametrize("lost", ["DELETE FROM schema_state", "DROP TABLE schema_state"])
def test_a_state_that_was_lost_is_written_anew(empty_database_url: str, release: Release, lost: str) -> None:
    """As by a test that empties all tables but Alembic's, or a restore that leaves one out."""
    code, settings = release("two"), PlatformSettings(database_url=empty_database_url)
    migrate(settings, migrations=code)
    with psycopg.connect(conninfo(empty_database_url)) as connection:
        kept = connection.execute("SELECT revision, serves_from FROM schema_state").fetchone()
        connection.execute(lost)
    done = migrate(settings, migrations=code)
    again = migrate(settings, migrations=code)
    with psycopg.connect(conninfo(empty_database_url)) as connection:
        noted = connection.execute("SELECT revision, serves_from FROM schema_state").fetchone()

    assert (done.applied, noted) == ((), kept)
    assert done.line.startswith("noted that the schema is at two, where Alembic had it: schema_state said nothing")
    assert again.line == "nothing to do: the schema is at two"


def test_four_runners_at_once_queue(settings: PlatformSettings, release: Release) -> None:
    code = release("three")
    with ThreadPoolExecutor(4) as runners:
        done = list(runners.map(lambda _: migrate(settings, migrations=code), range(4)))

    assert sorted(len(result.applied) for result in done) == [0, 0, 0, 3]


def test_a_waiting_runner_does_not_block_an_index_made_concurrently(
    settings: PlatformSettings, release: Release
) -> None:
    code = release("one")
    migrate(settings, migrations=code)
    write_migration(code, "two", "one", serves_from="one")
    (code / "versions" / "two.py").write_text(CONCURRENT)
    with ThreadPoolExecutor(4) as runners:
        done = list(runners.map(lambda _: migrate(settings, migrations=code), range(4)))

    assert sorted(len(result.applied) for result in done) == [0, 0, 0, 1]


CONCURRENT = """
from alembic import op

revision, down_revision, serves_from, breaking = "two", "one", "one", None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY notes_body ON notes (body)")
"""


def test_up_down_up_on_real_data(settings: PlatformSettings, release: Release) -> None:
    code = release("three")
    migrate(settings, migrations=code)
    with psycopg.connect(conninfo(url_of(settings)), autocommit=True) as connection:
        connection.execute("INSERT INTO notes (title) VALUES ('kept')")
        alembic(settings, code, "downgrade", "two")
        assert connection.execute("SELECT * FROM schema_state").fetchone() == (True, "two", "one", ["one", "two"])
        assert connection.execute("SELECT title, body FROM notes").fetchone() == ("kept", None)
        migrate(settings, migrations=code, breaking=True)

        assert connection.execute("SELECT * FROM notes").fetchone() == ("kept",)
        alembic(settings, code, "downgrade", "base")
        assert connection.execute("SELECT count(*) FROM schema_state").fetchone() == (0,)
        assert migrate(settings, migrations=code).after == "three"


def test_migrating_waits_for_the_server_and_gives_up(tmp_path: Path, release: Release) -> None:
    nowhere = PlatformSettings(database_url=f"postgresql://me:hunter2@/x?host={tmp_path}")

    with pytest.raises(ServerAway, match="PostgreSQL cannot be reached") as away:
        migrate(nowhere, migrations=release("one"), wait=0.5)
    assert "hunter2" not in str(away.value)


def test_the_sql_of_a_migration_can_be_printed(
    release: Release, settings: PlatformSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config()
    config.set_main_option("script_location", str(release("two")).replace("%", "%%"))
    command.upgrade(config, "head", sql=True)

    printed = capsys.readouterr().out
    assert "ALTER TABLE notes ADD title text" in printed
    assert "VALUES ('two', 'one', CAST('[\"one\", \"two\"]' AS jsonb))" in printed


def alembic(settings: PlatformSettings, code: Path, verb: str, revision: str) -> None:
    engine = create_engine(url_of(settings), poolclass=NullPool)
    with engine.connect() as connection:
        getattr(command, verb)(configure(code, connection), revision)


def url_of(settings: PlatformSettings) -> str:
    assert settings.database_url is not None
    return settings.database_url.get_secret_value()


def test_a_migration_that_fails_on_values_does_not_show_them(release: Release, empty_database_url: str) -> None:
    code, settings = release("one"), PlatformSettings(database_url=empty_database_url)
    migrate(settings, migrations=code)
    write_migration(
        code, "unique", "one", serves_from="one",
        up="INSERT INTO notes VALUES ('secret'), ('secret'); CREATE UNIQUE INDEX twice ON notes (body)",
    )  # fmt: skip

    with pytest.raises(MigrationFailed, match='could not create unique index "twice"') as failed:
        migrate(settings, migrations=code)
    words = "".join(traceback.format_exception(failed.value))
    assert "(secret)" not in words
    assert "SQLSTATE 23505" in words
