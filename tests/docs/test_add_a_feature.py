"""docs/add-a-feature.md, followed literally in a copy: green, no edit elsewhere, and what it warns of is caught."""

import re
import subprocess
from pathlib import Path

import pytest

from service.platform.testing.copies import commit, copy_repository, git, run_in, strip_features, type_check

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-feature.md").read_text()
MADE = re.findall(r"^```python\n# (\S+), as made\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = re.findall(r"^```(?:python|yaml|markdown)\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CHANGES = re.findall(r"^```diff\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
GENERATED = {
    ".env.example",
    "README.md",
    "service/platform/docs/README.md",
    "helm/README.md",
    "helm/values.schema.json",
    "helm/templates/_settings.tpl",
    "helm/observability/rules.yaml",
}
OWN = re.compile(
    r"service/orders/(\w+\.py|observability/rules(-test)?\.yaml|runbook\.md)|tests/test_orders\w*\.py|migrations/versions/\w+_add_orders\w*\.py"
)
DRIFT = "tests/platform/test_migrations.py::test_the_migrations_make_what_the_models_say"
LAYERS = "tests/platform/test_architecture.py::test_a_module_keeps_to_the_rules_of_its_room[service/orders/routes.py]"
CONTRACT = "tests/test_orders_contract.py"
MADE_UP = '''
"""Requests made up from what the orders say of themselves."""

from pathlib import Path

from tests.platform.http.test_contract import find


async def test_made_up_requests_find_nothing(tmp_path: Path, database_url: str) -> None:
    paths = "^/api/orders($|/[^/]*$|/.*/notes)"  # the warehouse is away here
    assert "Selected: 4" in await find(tmp_path, database_url, examples=20, seed=1, paths=paths)
'''
WHICH = (
    "tests/test_orders.py",
    "tests/test_orders_notes.py",
    CONTRACT,
    "tests/platform/test_architecture.py",
    "tests/platform/test_migrations.py",
    "-k",
    "orders or models_say or is_declared",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy with what `make feature` makes; tests/clone tries that by itself."""
    copy = copy_repository(tmp_path_factory.mktemp("feature") / "clone")
    strip_features(copy, keep_template_s=True)  # a clone may have orders of its own
    call(copy, "import deploy.generate; deploy.generate.main()")
    commit(copy)
    call(copy, "from deploy.feature import make; make('orders')")
    return copy


@pytest.fixture(scope="module")
def followed(made: Path) -> Path:
    for name, text in MADE:
        assert text in (made / name).read_text(), f"{name} is no longer made like that"
    for name, text in FILES:
        assert not (made / name).exists()
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text(text)
    for name, diff in CHANGES:
        (made / name).write_text(changed((made / name).read_text(), diff))
    assert run_in(made, "ruff", "format", "--quiet", "service/orders").returncode == 0
    call(made, "from deploy.migration import write; write('add_orders_note')")
    generated = run_in(made, "python", "deploy/generate.py")
    assert generated.returncode == 0, generated.stderr
    return made


def call(copy: Path, code: str) -> None:
    done = run_in(copy, "python", "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr


def changed(text: str, diff: str) -> str:
    """Put the added lines of each part of a diff in the place of its removed ones."""
    for part in diff.strip("\n").split("\n\n"):
        removed, added = ("".join(f"{line[1:]}\n" for line in part.split("\n") if line[0] == sign) for sign in "-+")
        assert text.count(removed) == 1, removed
        text = text.replace(removed, added)
    return text


def run_tests(copy: Path, server_url: str, *which: str) -> subprocess.CompletedProcess[str]:
    return run_in(copy, "pytest", "-q", "-p", "no:cacheprovider", *which, TEST_DATABASE_URL=server_url)


def test_nothing_is_edited_but_its_own_its_line_and_what_is_generated(followed: Path) -> None:
    lines = git(followed, "status", "--porcelain", "--untracked-files=all").splitlines()
    edited = {line[3:] for line in lines} - GENERATED

    assert {name for name in edited if not OWN.fullmatch(name)} == {"service/features.py"}
    assert git(followed, "diff", "--numstat", "service/features.py").split()[:2] == ["2", "0"]
    assert "SERVICE_ORDERS_WAREHOUSE_TOKEN" in (followed / ".env.example").read_text()
    assert "  seed " in run_in(followed, "service", "--help").stdout


def test_its_alerts_are_held_to_what_there_is_without_a_dashboard(followed: Path, server_url: str) -> None:
    done = run_tests(followed, server_url, "tests/platform/test_observability.py")

    assert done.returncode == 0, done.stdout
    assert "OrdersPile" in (followed / "helm" / "observability" / "rules.yaml").read_text()


def test_it_is_clean(followed: Path) -> None:
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache")):
        done = run_in(followed, *command)
        assert done.returncode == 0, done.stdout
    typed = type_check(followed)
    assert typed.returncode == 0, typed.stdout


def test_it_is_green_also_for_requests_made_up_from_its_declarations(followed: Path, server_url: str) -> None:
    (followed / CONTRACT).write_text(MADE_UP)
    done = run_tests(followed, server_url, *WHICH)
    (followed / CONTRACT).unlink()

    assert done.returncode == 0, done.stdout


@pytest.mark.ci
def test_the_verb_fills_the_development_database_which_nobody_has_made_yet(followed: Path) -> None:
    planted, again = [run_in(followed, "service", "seed", "--count", "2") for _ in range(2)]

    assert (planted.returncode, planted.stdout.splitlines()[-1]) == (0, "2 orders are there now"), planted.stderr
    assert (again.returncode, again.stderr.splitlines()[-1]) == (1, "there are orders already")


@pytest.mark.ci
def test_the_tests_of_settings_chart_and_documents_take_it(followed: Path, server_url: str) -> None:
    commit(followed)
    which = ("tests/platform/settings", "tests/helm/test_values.py", "tests/docs/test_docs.py")
    done = run_tests(followed, server_url, *which)

    assert done.returncode == 0, done.stdout


def test_a_forgotten_migration_and_an_imported_sibling_are_caught(followed: Path, server_url: str) -> None:
    [migration] = (followed / "migrations" / "versions").glob("*_add_orders_note.py")
    routes = followed / "service" / "orders" / "routes.py"
    sibling = followed / "service" / "sibling.py"
    kept = migration.read_text(), routes.read_text()
    try:
        migration.unlink()
        sibling.write_text("SIBLING = 1\n")
        routes.write_text("from service.sibling import SIBLING\n" + kept[1])
        done = run_tests(followed, server_url, DRIFT, LAYERS)
    finally:
        sibling.unlink(missing_ok=True)
        migration.write_text(kept[0])
        routes.write_text(kept[1])

    assert f"FAILED {DRIFT}" in done.stdout, done.stdout
    assert f"FAILED {LAYERS}" in done.stdout, done.stdout
    assert "2 failed" in done.stdout
