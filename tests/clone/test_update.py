"""`make update`: a clone that was renamed, stripped and edited takes a newer template, and only real conflicts stay."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from service.platform.testing.copies import ROOT, begin, commit, copy_repository, git, run_in
from service.platform.testing.fixtures import HEAD
from tests.platform.database.migrations import write_migration

UPDATE = ("python", "deploy/update.py")
NEWER = "\n# of a later version\n"
SETTING = '\n    own_word: str = Field("hello", description="What the clone adds.")\n'
SETTINGS_OF_THE_PLATFORM = "service/platform/settings/base.py"
NOT_OURS = "tried on the template; this clone has its own name, or less"
pytestmark = pytest.mark.skipif((ROOT / ".template.toml").exists(), reason=NOT_OURS)

# What the clone edits: two are deleted, and the first and the last one the template edits as well.
EDITED = ("AGENTS.md", "README.md", "deploy/kind.sh", "helm/values.yaml", "service/settings.py")
DELETED = (".editorconfig", "tests/platform/http/test_requests.py")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the template with two releases, of which the second touches more than fifty files."""
    copy = copy_repository(tmp_path_factory.mktemp("template") / "template")
    git(copy, "tag", "v0.1.0")
    release(copy)
    return copy


def release(copy: Path) -> None:
    code = [
        name for name in git(copy, "ls-files", "service/platform", "tests/platform").split() if name.endswith(".py")
    ]
    for name in code[:50]:
        with (copy / name).open("a") as file:
            file.write(NEWER)
    for name in ("README.md", "SECURITY.md", "docs/capacity.md"):
        with (copy / name).open("a") as file:
            file.write("\nA later version says more.\n")
    base = copy / SETTINGS_OF_THE_PLATFORM
    base.write_text(base.read_text().replace("further ones get 503.", "all others get 503."))
    first_line(copy / "AGENTS.md", "# For assistants, as the template says it")
    (copy / "deploy" / "newer.md").write_text("New.\n")
    (copy / ".pre-commit-config.yaml").unlink()
    pyproject = copy / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('version = "0.1.0"', 'version = "0.2.0"', 1))
    write_migration(copy / "migrations", "later", HEAD, serves_from=served_from(copy, HEAD), up="SELECT 1")
    assert run_in(copy, "ruff", "format", "--quiet").returncode == 0
    assert run_in(copy, "python", "deploy/generate.py").returncode == 0
    commit(copy)
    git(copy, "tag", "v0.2.0")


def served_from(copy: Path, revision: str | None) -> str:
    """Return what an addition after a revision says: what that one says itself."""
    texts = (file.read_text() for file in (copy / "migrations" / "versions").glob("*.py"))
    said = next(text for text in texts if f'revision = "{revision}"\n' in text)
    found: list[str] = re.findall(r'^serves_from = "(\w+)"', said, re.MULTILINE)
    return found[0]


def first_line(path: Path, line: str) -> None:
    path.write_text(f"{line}\n{path.read_text().partition('\n')[2]}")


@pytest.fixture(scope="module")
def lived(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone without the template's history that was renamed, stripped and edited in seven files."""
    copy = tmp_path_factory.mktemp("lived") / "clone"
    git(template.parent, "clone", "--quiet", "--branch", "v0.1.0", str(template), str(copy))
    shutil.rmtree(copy / ".git")
    begin(copy)
    configure(copy)
    commit(copy)
    for step in (("deploy/rename.py", "acme-shop", "--holder", "2025 Example Ltd"), ("deploy/remove_sample.py",)):
        done = run_in(copy, "python", *step)
        assert done.returncode == 0, done.stderr
        commit(copy)
    first_line(copy / "AGENTS.md", "# For assistants, as the clone says it")
    first_line(copy / "README.md", "# Acme's shop")
    for name in ("deploy/kind.sh", "helm/values.yaml"):
        with (copy / name).open("a") as file:
            file.write("# ours\n")
    settings = (copy / "service" / "settings.py").read_text()
    settings = settings.replace("import PlatformSettings", "import PlatformSettings\nfrom pydantic import Field")
    (copy / "service" / "settings.py").write_text(settings + SETTING)
    for name in DELETED:
        (copy / name).unlink()
    pyproject = copy / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('version = "0.1.0"', 'version = "7.0.0"', 1))
    [before] = tomllib.loads((copy / "migrations" / "removed.toml").read_text()).values()
    write_migration(copy / "migrations", "own", before, serves_from=served_from(copy, before), up="SELECT 1")
    assert run_in(copy, "ruff", "check", "--fix", "--quiet", "service/settings.py").returncode == 0
    assert run_in(copy, "ruff", "format", "--quiet").returncode == 0
    assert run_in(copy, "python", "deploy/generate.py").returncode == 0
    commit(copy)
    return copy


def configure(copy: Path) -> None:
    git(copy, "config", "user.name", "tests")
    git(copy, "config", "user.email", "tests@example.org")


@pytest.fixture(scope="module")
def halfway(lived: Path, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the clone in the middle of an update, with what is left to mend."""
    copy = Path(shutil.copytree(lived, tmp_path_factory.mktemp("halfway") / "clone", symlinks=True))
    done = run_in(copy, *UPDATE, "--from", str(template))
    assert done.returncode == 0, done.stderr
    assert "both sides edited these files:\n  AGENTS.md\nMend them" in done.stdout
    return copy


@pytest.fixture
def clone(lived: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lived, tmp_path / "clone", symlinks=True))


def test_only_what_both_sides_edited_is_in_conflict(halfway: Path, lived: Path, template: Path) -> None:
    changed = git(template, "diff", "--name-only", "v0.1.0", "v0.2.0").splitlines()
    merged = git(halfway, "diff", "--name-only", "HEAD").splitlines()

    assert len(changed) >= 50
    assert git(halfway, "diff", "--name-only", "--diff-filter=U").split() == ["AGENTS.md"]
    assert "<<<<<<< yours" in (halfway / "AGENTS.md").read_text()
    assert ">>>>>>> template v0.2.0" in (halfway / "AGENTS.md").read_text()
    pages = {name: f"service/platform/docs/{name}" for name in ("README.md", "SECURITY.md")}
    assert {pages.get(name, name) for name in changed} - {"pyproject.toml"} <= {*merged, "README.md"}
    for name in set(EDITED) - {"AGENTS.md"}:
        assert (halfway / name).read_text() == (lived / name).read_text()
    assert not [name for name in (*DELETED, ".pre-commit-config.yaml") if (halfway / name).exists()]


@pytest.fixture(scope="module")
def mended(halfway: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the clone after the update, with the conflict mended in its favour and the migrations joined."""
    copy = Path(shutil.copytree(halfway, tmp_path_factory.mktemp("mended") / "clone", symlinks=True))
    assert "AGENTS.md" in run_in(copy, *UPDATE).stdout

    git(copy, "checkout", "--ours", "AGENTS.md")
    git(copy, "add", "AGENTS.md")
    done = run_in(copy, *UPDATE)
    assert (done.returncode, "git commit" in done.stdout, "failed" in done.stdout) == (0, True, False), done.stdout
    assert "two heads now, yours and the template's" in done.stdout
    joined = run_in(copy, "python", "-c", "from deploy import join; join.join()")
    assert joined.returncode == 0, joined.stderr
    assert "?? " not in git(copy, "status", "--porcelain")
    git(copy, "commit", "--quiet", "--no-edit")
    return copy


def test_it_ends_with_a_commit_once_that_is_mended(mended: Path, template: Path) -> None:
    copy = mended
    assert git(copy, "status", "--porcelain") == ""
    assert run_in(copy, "alembic", "heads").stdout.count("(head)") == 1
    words = ("all others get 503.", "SERVICE_OWN_WORD")
    for name in (".env.example", "service/platform/docs/README.md", "helm/values.schema.json"):
        assert all(word in (copy / name).read_text() for word in words), name
        assert "<<<<<<<" not in (copy / name).read_text()
    assert 'version = "7.0.0"' in (copy / "pyproject.toml").read_text()
    assert (copy / "service" / "platform" / "docs" / "README.md").read_text().endswith("A later version says more.\n")
    assert tomllib.loads((copy / ".template.toml").read_text()) == {
        "url": str(template),
        "commit": git(template, "rev-parse", "v0.2.0").strip(),
        "version": "v0.2.0",
        "name": "acme-shop",
        "holder": "2025 Example Ltd",
        "removed": ["sample"],
    }
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache")):
        checked = run_in(copy, *command)
        assert checked.returncode == 0, checked.stdout

    again = run_in(copy, *UPDATE)
    assert (again.returncode, git(copy, "status", "--porcelain")) == (0, "")
    assert f"there is nothing newer at {template}: this clone has v0.2.0 already" in again.stdout


@pytest.mark.ci
def test_its_suite_is_green(mended: Path, server_url: str) -> None:
    which = (
        *("tests/docs/test_docs.py", "tests/platform/settings", "tests/platform/test_architecture.py"),
        *("tests/platform/test_migrations.py", "tests/test_hello.py", "tests/helm/test_names.py"),
    )
    done = run_in(mended, "pytest", "-q", "-p", "no:cacheprovider", *which, TEST_DATABASE_URL=server_url)

    assert done.returncode == 0, done.stdout[-3000:]


def test_a_half_update_is_left_by_one_command(halfway: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(halfway, tmp_path / "clone", symlinks=True))
    done = run_in(copy, *UPDATE, "--abort")

    assert (done.returncode, git(copy, "status", "--porcelain")) == (0, "")
    assert git(copy, "branch", "--list", "template") == ""
    assert not (copy / ".git" / "MERGE_HEAD").exists()
    assert not (copy / "deploy" / "newer.md").exists()
    assert "no update is under way" in run_in(copy, *UPDATE, "--abort").stderr


def refused(clone: Path, *arguments: str) -> str:
    """Run it, see that it changes nothing, and return its sentence."""
    before = git(clone, "status", "--porcelain"), git(clone, "branch", "--list")
    done = run_in(clone, *UPDATE, *arguments)

    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stdout
    assert (git(clone, "status", "--porcelain"), git(clone, "branch", "--list")) == before
    return done.stderr


def test_it_says_in_a_sentence_why_it_cannot(clone: Path, template: Path, tmp_path: Path) -> None:
    there = ("--from", str(template))

    assert "make update FROM=https://" in refused(clone)
    assert "cannot be read (fatal: '" in refused(clone, "--from", str(tmp_path / "nowhere"))
    assert "http://127.0.0.1:1/x.git cannot be read" in refused(clone, "--from", "http://me:secret@127.0.0.1:1/x.git")
    assert "secret" not in refused(clone, "--from", "http://me:secret@127.0.0.1:1/x.git")
    assert "the template has no v9; its tags are v0.2.0, v0.1.0" in refused(clone, *there, "--to", "v9")
    assert "BASE is the version" in refused(clone, *there, "--base", "v9")
    assert "is a clone and not the template" in refused(clone, "--from", str(clone))
    git(clone, "branch", "template", git(clone, "rev-list", "--max-parents=0", "HEAD").strip())
    assert "a branch `template` that no update made" in refused(clone, *there)
    (clone / "notes.txt").write_text("mine")
    assert "commit or stash first" in refused(clone, *there)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("cherry-pick", "other"), "a cherry-pick is under way: end it first"),
        (("merge", "other"), "another merge is under way: end it first, by `git commit` or `git merge --abort`"),
    ],
)
def test_it_begins_in_nothing_else_that_git_has_in_hand(
    clone: Path, template: Path, words: tuple[str, ...], told: str
) -> None:
    before = git(clone, "rev-parse", "HEAD").strip()
    for name in ("other", "own"):
        git(clone, "checkout", "--quiet", "-b", name, before)
        first_line(clone / "README.md", f"# As {name}")
        commit(clone)
    with pytest.raises(subprocess.CalledProcessError):
        git(clone, *words)
    git(clone, "checkout", "HEAD", "--", ".")  # clean, as after all was mended in favour of this side

    assert told in refused(clone, "--from", str(template))


def test_no_update_goes_back(clone: Path, template: Path) -> None:
    told = refused(clone, "--from", str(template), "--to", "v0.1.0", "--base", "v0.2.0")

    assert "v0.1.0 is older than v0.2.0, which this clone has" in told


def test_what_git_ignores_is_not_written_over(clone: Path, template: Path) -> None:
    (clone / ".git" / "info" / "exclude").write_text("/deploy/newer.md\n")
    (clone / "deploy" / "newer.md").write_text("mine")

    assert "deploy/newer.md, which git ignores, is where the template adds" in refused(clone, "--from", str(template))
    assert (clone / "deploy" / "newer.md").read_text() == "mine"


def test_a_hook_that_fails_does_not_end_it_half_way(clone: Path, template: Path) -> None:
    hook = clone / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    done = run_in(clone, *UPDATE, "--from", str(template))

    assert (done.returncode, "both sides edited these files:\n  AGENTS.md\n" in done.stdout) == (0, True), done.stderr


def test_a_conflict_in_what_is_no_utf_8_is_told_as_any_other(clone: Path, template: Path) -> None:
    (clone / "AGENTS.md").write_bytes("# Für Helfer\n".encode("latin-1"))
    commit(clone)
    done = run_in(clone, *UPDATE, "--from", str(template))

    assert (done.returncode, "both sides edited these files:\n  AGENTS.md\n" in done.stdout) == (0, True), done.stderr


def test_what_fails_in_the_middle_is_taken_back(clone: Path, template: Path) -> None:
    script = (
        "import sys; from deploy import update; from deploy.clone import Refused, command\n"
        "def settle(*_):\n    raise Refused('no room')\n"
        "update.settle = settle\n"
        f"sys.argv[1:] = ['--from', {str(template)!r}]\n"
        "command(update.main)"
    )
    before = git(clone, "status", "--porcelain"), git(clone, "branch", "--list")
    done = run_in(clone, "python", "-c", script)

    assert (done.returncode, done.stderr) == (1, "nothing was changed: no room\n")
    assert (git(clone, "status", "--porcelain"), git(clone, "branch", "--list")) == before
    assert "no update is under way" in refused(clone, "--abort")


def test_what_fails_after_the_merge_is_not_said_to_have_changed_nothing(
    clone: Path, template: Path, tmp_path: Path
) -> None:
    """It goes on once that is mended."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    fails = 'case "$*" in "add --update") echo "no room" >&2; exit 128 ;; esac'
    program.write_text(f'#!/bin/sh\n{fails}\nexec {shutil.which("git")} "$@"\n')
    program.chmod(0o755)
    git(clone, "checkout", "--quiet", "HEAD~1", "--", "AGENTS.md")  # which both sides edited
    commit(clone)
    done = run_in(clone, *UPDATE, "--from", str(template), PATH=f"{program.parent}:{os.environ['PATH']}")

    assert done.returncode == 1
    assert done.stderr.startswith("v0.2.0 of the template is merged, but git add --update failed:\nno room\n")
    assert done.stderr.endswith("Mend that, and then: make update\nTo leave it: make update ABORT=1\n")
    again = run_in(clone, *UPDATE)
    assert (again.returncode, "merged and not yet committed" in again.stdout) == (0, True)


def test_an_interrupted_one_leaves_no_work_tree(clone: Path, template: Path) -> None:
    script = (
        "import os, signal, sys; from deploy import projection, update; from deploy.clone import command\n"
        "done, at = projection.run, sys.argv[1]\n"
        "def run(*words):\n"
        "    said = done(*words)\n"
        "    if at in words:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return said\n"
        "projection.run = run\n"
        f"sys.argv[1:] = ['--from', {str(template)!r}]\n"
        "command(update.main)"
    )
    for at in ("worktree", "write-tree"):
        done = run_in(clone, "python", "-c", script, at)

        assert "interrupted" in done.stderr, done.stderr
        assert len(git(clone, "worktree", "list").splitlines()) == 1, at


def test_leaving_it_takes_what_git_has_laid_beside_and_names_what_else_is_new(clone: Path, template: Path) -> None:
    (clone / "deploy" / "newer.md").mkdir()
    (clone / "deploy" / "newer.md" / "ours").write_text("ours")
    commit(clone)
    assert run_in(clone, *UPDATE, "--from", str(template)).returncode == 0
    (clone / "notes.txt").write_text("mine")
    assert "template v0.2.0" in git(clone, "status", "--porcelain")
    done = run_in(clone, *UPDATE, "--abort")

    assert done.stdout.endswith("written meanwhile, which git does not know:\nnotes.txt\n")
    assert git(clone, "status", "--porcelain") == "?? notes.txt\n"


def test_two_work_trees_of_one_repository_each_have_an_update_of_their_own(
    clone: Path, template: Path, tmp_path: Path
) -> None:
    git(clone, "worktree", "add", "--quiet", "-b", "second", str(tmp_path / "second"))
    for tree in (tmp_path / "second", clone):
        assert run_in(tree, *UPDATE, "--from", str(template)).returncode == 0
    for tree in (clone, tmp_path / "second"):
        done = run_in(tree, *UPDATE, "--abort")

        assert (done.returncode, git(tree, "status", "--porcelain")) == (0, ""), done.stderr
    assert git(clone, "branch", "--list", "template") == ""


def test_a_shallow_clone_is_told(template: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{template}", "clone")

    assert "`git fetch --unshallow`" in refused(tmp_path / "clone")


def test_a_fork_has_its_base_in_its_history(template: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--branch", "v0.1.0", str(template), "clone")
    (tmp_path / "clone" / "notes.txt").write_text("mine")
    commit(tmp_path / "clone")
    script = "from deploy import base, update; update.fetch('..'); print(base.find_base('', '', update.pick('', '')))"
    found = run_in(tmp_path / "clone", "python", "-c", script.replace("..", str(template)))

    assert found.stdout == git(template, "rev-parse", "v0.1.0"), found.stderr


def test_what_resembles_no_version_is_asked_about(clone: Path, template: Path) -> None:
    git(clone, "checkout", "--quiet", "--orphan", "other")
    for name in git(clone, "ls-files", "service/platform", "tests", "helm", "docs").splitlines():
        (clone / name).unlink()
    git(clone, "add", "--all")
    commit(clone)

    assert "say it by BASE=v1.2.0" in refused(clone, "--from", str(template))
