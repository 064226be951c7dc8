"""docs/evolve-a-table.md: its migrations run on a table with rows, are safe to apply, and serve whom they say."""

import re
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from service.platform.database import MigrationRefused
from service.platform.database.migrate import configure, migrate
from service.platform.database.progress import MigrationFailed
from service.platform.testing.copies import ROOT
from tests.platform.database.migrations import make_release, write_migration
from tests.platform.test_migrations import lint_migration
from tests.platform.upgrades import fill_database, release_of, settings_for, upgrade_problems

PAGE = (ROOT / "docs" / "evolve-a-table.md").read_text()
FILES = re.findall(r"^```python\n# migrations/versions/(\w+)\.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NAMES = ["add_orders", *(name for name, _ in FILES)]
HEAD = '''"""What the page says."""

import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = "{before}"
'''
ORDERS = (
    "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL, "
    "at timestamptz NOT NULL DEFAULT now())"
)
ROWS = 2_500  # two portions and a half


@pytest.fixture(scope="module")
def migrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_release(tmp_path_factory.mktemp("page"), "one")
    (made / "versions" / "one.py").unlink()
    write_migration(made, "add_orders", None, serves_from="add_orders", up=ORDERS, back="DROP TABLE orders")
    for before, (name, body) in zip(NAMES, FILES, strict=False):
        (made / "versions" / f"{name}.py").write_text(HEAD.format(name=name, before=before) + body)
    return made


@pytest.fixture
def filled(migrations: Path, empty_database_url: str, tmp_path: Path) -> str:
    """Return the address of a database of the first release, with rows."""
    fill_database(empty_database_url, migrations, "add_orders", tmp_path)
    execute(empty_database_url, "INSERT INTO orders (text) SELECT 'order ' || n FROM generate_series(2, 2500) n")
    return empty_database_url


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


@pytest.mark.parametrize("name", NAMES[1:])
def test_each_is_safe_to_apply(migrations: Path, name: str, tmp_path: Path) -> None:
    linted = lint_migration(migrations, name, tmp_path)

    assert linted.returncode == 0, linted.stdout


def test_what_the_page_means_the_linter_would_have_found(migrations: Path, tmp_path: Path) -> None:
    meant = [(name, rule) for name, body in FILES for rule in re.findall(r'"(\w+(?:-\w+)+)"', body)]
    for name, rule in meant:
        file = migrations / "versions" / f"{name}.py"
        kept = file.read_text()
        file.write_text(kept.replace(f'"{rule}"', '"ban-char-field"'))
        assert rule in lint_migration(migrations, name, tmp_path).stdout
        file.write_text(kept)

    assert len(meant) == 4


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_each_release_works_on_every_later_schema_that_serves_it(
    migrations: Path, name: str, empty_database_url: str, tmp_path: Path
) -> None:
    fill_database(empty_database_url, migrations, name, tmp_path)

    assert list(upgrade_problems(empty_database_url, migrations, name, tmp_path)) == []


def test_they_run_one_by_one_on_a_table_with_rows_and_back(migrations: Path, filled: str, tmp_path: Path) -> None:
    settings = settings_for(filled)
    for name in NAMES[1:]:
        release = release_of(migrations, name, tmp_path)
        breaking = 'breaking = "' in dict(FILES)[name]
        if breaking:
            with pytest.raises(MigrationRefused, match="--breaking"):
                migrate(settings, migrations=release)
        assert migrate(settings, migrations=release, breaking=breaking).applied == (name,)
    engine = create_engine(filled, poolclass=NullPool)
    columns = {column["name"]: column["nullable"] for column in inspect(engine).get_columns("orders")}
    with engine.connect() as connection:
        command.downgrade(configure(migrations, connection), "add_orders")
        connection.commit()

    assert columns == {"id": False, "at": False, "customer": False, "replaces": True, "title": True}
    assert execute(filled, "SELECT count(*), min(text) <> '' FROM orders") == [(ROWS, True)]
    assert migrate(settings, migrations=migrations, breaking=True).applied == tuple(NAMES[1:])


def test_a_foreign_key_reads_no_row_until_it_is_looked_at_by_itself(
    migrations: Path, filled: str, tmp_path: Path
) -> None:
    migrate(settings_for(filled), migrations=release_of(migrations, "add_replaces", tmp_path), breaking=True)
    key = "SELECT convalidated FROM pg_constraint WHERE conname = 'fk_orders_replaces_orders'"
    before = execute(filled, key)
    migrate(settings_for(filled), migrations=release_of(migrations, "validate_replaces", tmp_path))

    assert (before, execute(filled, key)) == ([(False,)], [(True,)])


def test_the_index_is_built_again_where_a_try_left_an_invalid_one(
    migrations: Path, filled: str, tmp_path: Path
) -> None:
    settings = settings_for(filled)
    migrate(settings, migrations=release_of(migrations, "customer_not_null", tmp_path), breaking=True)
    execute(filled, "CREATE INDEX orders_customer ON orders (customer)")
    execute(filled, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_customer'::regclass")
    migrate(settings, migrations=release_of(migrations, "index_customer", tmp_path))

    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_customer'::regclass"
    assert execute(filled, valid) == [(True,)]


def test_a_backfill_that_was_cut_off_goes_on_where_it_was(migrations: Path, filled: str, tmp_path: Path) -> None:
    settings = settings_for(filled)
    migrate(settings, migrations=release_of(migrations, "add_customer", tmp_path))
    execute(filled, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE $$cut off$$; END'")
    execute(
        filled,
        f"CREATE TRIGGER cut BEFORE UPDATE ON orders FOR EACH ROW WHEN (old.id = {ROWS}) EXECUTE FUNCTION refuse()",
    )
    release = release_of(migrations, "fill_customer", tmp_path)
    with pytest.raises(MigrationFailed, match="cut off"):
        migrate(settings, migrations=release, breaking=True)
    kept = execute(filled, "SELECT count(*) FROM orders WHERE customer IS NOT NULL")
    execute(filled, "DROP TRIGGER cut ON orders")
    migrate(settings, migrations=release, breaking=True)

    assert kept == [(2_000,)]
    assert execute(filled, "SELECT count(*) FROM orders WHERE customer IS NULL") == [(0,)]
