"""The sample goes without a trace: in a copy, what is left is clean, whole and green."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx2
import psycopg
import pytest
import trio

from service.platform.database.embedded import open_embedded
from service.platform.testing.copies import ROOT, commit, copy_repository, git, run_in, run_suite, type_check
from service.platform.testing.development import Lay
from service.platform.testing.processes import ready, run_to_end
from tests.platform.database.migrations import write_migration
from tests.platform.database.observer import conninfo

NAMED = re.compile("chat(?!ham)", re.IGNORECASE)  # Pacific/Chatham is a time zone
REMOVE = ("python", "deploy/remove_sample.py")
MARK = re.compile(r"(?:#|<!--)\s*sample(?::|\s*(?:-->)?[\s|]*$)", re.MULTILINE)
# Written out, so that more of them is a decision.
MARKED_FILES = {".ci/run", "README.md", "docs/capacity.md", "pyproject.toml", "service/features.py"}
MOST_LINES = 10
TRIED_ELSEWHERE = (
    *("tests/platform", "tests/system"),  # by tests/platform/test_rooms.py, under another name too and with less still
    "tests/docs/test_add_a_feature.py",  # by tests/clone/test_whole_life.py, which makes a feature in such a clone
    "tests/clone/test_feature.py",  # by the same
    *("tests/helm/test_mutations.py", "tests/helm/test_random_values.py"),  # here: what they make up has no name in it
)
GENERATED = {".env.example", "helm/templates/_settings.tpl", "helm/values.schema.json", "uv.lock"}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("pristine") / "clone")


@pytest.fixture(scope="module")
def removed(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("removed") / "clone"
    shutil.copytree(pristine, copy, symlinks=True)
    done = run_in(copy, *REMOVE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "make test" in done.stdout
    commit(copy)
    return copy


@pytest.fixture
def clone(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "clone", symlinks=True))


def texts(copy: Path) -> dict[str, str]:
    """Return each tracked text by its name; of the lock file nothing, where a dependency may be called anything."""
    found = {}
    for name in git(copy, "ls-files").splitlines():
        try:
            found[name] = (copy / name).read_text() if (copy / name).is_file() and name != "uv.lock" else ""
        except UnicodeDecodeError:
            found[name] = ""
    return found


def test_nothing_names_it_any_more_but_the_changelog_and_its_revision(removed: Path) -> None:
    naming = [name for name, text in texts(removed).items() if NAMED.search(name + text)]

    assert naming == ["CHANGELOG.md", "migrations/removed.toml"]


def test_no_mark_is_left_and_no_empty_folder(removed: Path) -> None:
    assert not [name for name, text in texts(removed).items() if MARK.search(text)]
    assert not (removed / "deploy" / "remove_sample.py").exists()
    for folder in ("service", "tests", "docs", "deploy", "migrations"):
        assert not [one for one, folders, files in (removed / folder).walk() if not folders and not files]


def test_outside_its_folders_a_few_marked_lines_go_and_what_is_generated(pristine: Path, removed: Path) -> None:
    left = texts(removed)
    pairs = {name: (text, left.get(name)) for name, text in texts(pristine).items()}
    changed = {name for name, (before, after) in pairs.items() if after is not None and before != after}
    cut = sum(len(MARK.findall(pairs[name][0])) for name in MARKED_FILES)

    assert changed - GENERATED - {"helm/observability/rules.yaml"} == MARKED_FILES
    assert cut <= MOST_LINES
    assert not [name for name in changed if name.startswith(("service/platform/", "tests/"))]
    print(f"{cut} lines of {len(MARKED_FILES)} files")


def test_what_is_left_is_clean(removed: Path) -> None:
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache")):
        done = run_in(removed, *command)
        assert done.returncode == 0, done.stdout


@pytest.mark.ci
def test_what_is_left_fits_together(removed: Path) -> None:
    done = type_check(removed)

    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not (ROOT / "service" / "hello.py").exists(), reason="hello has been removed as well")
async def test_hello_has_the_front_page(removed: Path, tmp_path: Path, empty_database_url: str) -> None:
    command = ("env", f"PYTHONPATH={removed}", sys.executable, "-m", "service")
    assert run_to_end(tmp_path, "migrate", command=command, database_url=empty_database_url).returncode == 0
    async with (
        ready(tmp_path, "serve", command=command, database_url=empty_database_url, drain_delay=0) as service,
        httpx2.AsyncClient(base_url=service.public) as client,
    ):
        front, page = await client.get("/"), await client.get("/api/rooms/x/messages")

    assert front.json()["message"] == "hello"
    assert page.status_code == 404


def test_a_database_that_ran_its_migration_is_told_the_way_on(
    removed: Path, tmp_path: Path, writable_database_url: str
) -> None:
    copy = Path(shutil.copytree(removed, tmp_path / "own", symlinks=True))
    [before] = tomllib.loads((copy / "migrations" / "removed.toml").read_text()).values()
    write_migration(
        copy / "migrations", "own", before or None, serves_from=before or "own", up="CREATE TABLE own (x integer)"
    )

    def migrate(*flags: str) -> subprocess.CompletedProcess[str]:
        return run_in(copy, "service", "migrate", *flags, SERVICE_DATABASE_URL=writable_database_url)

    told, forgot, again = migrate(), migrate("--forget"), migrate()

    assert (told.returncode, forgot.returncode, again.returncode) == (4, 0, 0), told.stderr + forgot.stderr
    assert "which was taken out of this code: `--forget` goes on from before it" in told.stderr
    assert "Traceback" not in told.stderr
    assert {"own", "chat_message"} <= tables(writable_database_url)


@pytest.mark.parametrize("choice", ["downgrade", "keep"])
def test_the_development_database_is_brought_back_or_left(clone: Path, lay_development: Lay, choice: str) -> None:
    lay_development(clone)
    done = run_in(clone, *REMOVE, "--database", choice)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("service dev --forget" in done.stdout) == (choice == "keep")
    with open_embedded(clone / ".data" / "postgres") as server:
        assert ("chat_message" in tables(server.url)) == (choice == "keep")


def tables(url: str) -> set[str]:
    with psycopg.connect(conninfo(url)) as connection:
        return {row[0] for row in connection.execute("SELECT tablename FROM pg_tables").fetchall()}


@pytest.mark.parametrize("first", ["rename", "remove"])
def test_it_goes_from_a_renamed_clone_and_a_clone_without_it_is_renamed(clone: Path, first: str) -> None:
    steps = [("python", "deploy/rename.py", "shop"), (*REMOVE, "--database", "keep")]
    for step in steps if first == "rename" else reversed(steps):
        done = run_in(clone, *step)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "failed" not in done.stdout
        commit(clone)
    documents = run_in(clone, "pytest", "-q", "-p", "no:cacheprovider", "tests/docs/test_docs.py", "-k", "not requests")
    naming = [name for name, text in texts(clone).items() if NAMED.search(name + text)]

    assert documents.returncode == 0, documents.stdout
    assert naming == ["migrations/removed.toml", "service/platform/docs/CHANGELOG.md"]


def test_a_dry_run_lists_everything_and_changes_nothing(clone: Path) -> None:
    done = run_in(clone, *REMOVE, "--dry-run")

    assert done.returncode == 0
    assert {"remove  service/chat/routes.py", "remove  migrations/versions/0003_chat.py"} <= set(
        done.stdout.splitlines()
    )
    assert "cut     service/features.py: 2 lines" in done.stdout
    assert "service/platform" not in done.stdout
    assert git(clone, "status", "--porcelain") == ""


def refused(clone: Path) -> str:
    """Run it, see that it changes nothing, and return what it says."""
    before = git(clone, "status", "--porcelain")
    done = run_in(clone, *REMOVE)

    assert done.returncode == 1
    assert git(clone, "status", "--porcelain") == before
    return done.stderr


def test_a_later_migration_comes_after_what_was_before_the_sample_s(
    clone: Path, writable_database_url: str, empty_database_url: str
) -> None:
    for revision, below in (("orders", "chat"), ("items", "orders")):
        write_migration(
            clone / "migrations", revision, below, serves_from="chat", up=f"CREATE TABLE {revision} (x integer)"
        )
    commit(clone)
    used = run_in(clone, "service", "migrate", SERVICE_DATABASE_URL=writable_database_url)
    done = run_in(clone, *REMOVE)
    assert (used.returncode, done.returncode) == (0, 0), used.stderr + done.stderr

    later = [
        run_in(clone, "service", "migrate", SERVICE_DATABASE_URL=url)
        for url in (writable_database_url, empty_database_url)
    ]
    assert [one.returncode for one in later] == [0, 0], later[0].stderr + later[1].stderr
    assert tables(writable_database_url) - tables(empty_database_url) == {"chat_epoch", "chat_message", "chat_room"}
    assert {"orders", "items"} <= tables(empty_database_url)


def test_a_migration_of_your_own_stays_whatever_it_is_called(clone: Path) -> None:
    versions = clone / "migrations" / "versions"
    write_migration(clone / "migrations", "2c4f1a5a5f00", "chat", serves_from="chat", up="CREATE TABLE a (x integer)")
    own = versions / "2c4f1a5a5f00_add_chat_archive.py"
    (versions / "2c4f1a5a5f00.py").rename(own)
    commit(clone)
    done = run_in(clone, *REMOVE)

    assert done.returncode == 0, done.stderr
    assert own.exists()
    assert list(tomllib.loads((clone / "migrations" / "removed.toml").read_text())) == ["chat"]


def test_it_refuses_a_migration_that_builds_on_the_sample_s_and_another(clone: Path) -> None:
    later = clone / "migrations" / "versions" / "9999_later.py"
    later.write_text('revision = "9999"\ndown_revision = ("chat", "other")\n')
    commit(clone)

    assert "9999_later.py builds on the sample's migration and on another" in refused(clone)


def test_it_refuses_when_it_could_not_be_undone(clone: Path) -> None:
    (clone / "notes.txt").write_text("mine")
    assert "commit or stash first" in refused(clone)

    (clone / "notes.txt").unlink()
    (clone / ".template.toml").write_text("<<<<<<< yours")
    commit(clone)
    assert ".template.toml cannot be read" in refused(clone)

    (clone / ".git").rename(clone / "no-git")
    assert "no git clone" in run_in(clone, *REMOVE).stderr


def test_it_removes_nothing_of_yours_that_git_ignores_but_caches(clone: Path) -> None:
    mine, cache = clone / "service" / "chat" / ".env", clone / "service" / "chat" / "__pycache__" / "gone.pyc"
    mine.write_text("mine")
    cache.parent.mkdir(exist_ok=True)
    cache.touch()
    assert "service/chat/.env, which git ignores, would go with the sample for good" in refused(clone)

    mine.rename(clone / ".env")
    done = run_in(clone, *REMOVE)
    assert (done.returncode, cache.exists(), (clone / ".env").read_text()) == (0, False, "mine"), done.stderr


def test_it_refuses_a_second_time(removed: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(removed, tmp_path / "again", symlinks=True))
    shutil.copy(ROOT / "deploy" / "remove_sample.py", again / "deploy")
    commit(again)

    assert "has been removed already" in refused(again)


@pytest.mark.ci
async def test_the_suite_is_green_under_another_name_too(removed: Path, tmp_path: Path) -> None:
    """What the tree says, what is generated of it, and the commands of a clone."""
    copy = Path(shutil.copytree(removed, tmp_path / "clone", symlinks=True))
    renamed = run_in(copy, "python", "deploy/rename.py", "acme-shop")
    assert renamed.returncode == 0, renamed.stderr
    commit(copy)

    done = await trio.to_thread.run_sync(lambda: run_suite(copy, without=TRIED_ELSEWHERE))

    assert done.returncode == 0, done.stdout[-3000:]
