"""`make rename`: a clone gets its own name wherever outsiders see one, and stays clean, whole and green."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import helm_python
import pytest

from service.platform.name import NAME, TITLE
from service.platform.testing.copies import (
    ROOT,
    UV,
    begin,
    commit,
    copy_repository,
    git,
    run_in,
    template_page,
    type_check,
)

RENAME = ("python", "deploy/rename.py")
LONG = "-".join(("acme", "order", "management"))  # joined here, so that the name itself is nowhere before
KEPT = "service/platform/docs/"  # the template's own words
pytestmark = pytest.mark.skipif(
    template_page("README.md") != ROOT / "README.md", reason="tried on the template; this clone has its own name"
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("pristine") / "clone")


@pytest.fixture(scope="module")
def renamed(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("renamed") / "clone", symlinks=True))
    done = run_in(copy, *RENAME, LONG, "--holder", "Example Ltd")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    commit(copy)
    return copy


@pytest.fixture
def clone(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "clone", symlinks=True))


def test_no_place_keeps_the_template_s_name(renamed: Path) -> None:
    named = git(renamed, "grep", "-iIl", "-e", NAME, "--", ".").splitlines()
    licence = (renamed / "LICENSE").read_text()

    assert [name for name in named if not name.startswith(KEPT)] == ["LICENSE"]
    assert f" Example Ltd\nCopyright (c) 2026 The {TITLE} authors\n" in licence


def test_every_place_is_there(pristine: Path) -> None:
    """A place that no file has any more would be a name that is left behind."""
    script = "import json; from deploy import rename; print(json.dumps(rename.PLACES))"
    for pattern, texts in json.loads(run_in(pristine, "python", "-c", script).stdout).items():
        files = [path for path in pristine.glob(pattern) if path.is_file()]
        contents = "".join(path.read_text() for path in files)
        for text in texts if files or "*" not in pattern else ():  # without a sample no feature has such a file
            assert text.format(name=NAME, title=TITLE) in contents, (pattern, text)


def test_what_follows_fits(renamed: Path) -> None:
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache")):
        done = run_in(renamed, *command)
        assert done.returncode == 0, done.stdout
    if Path(UV).exists():
        locked = run_in(renamed, UV, "lock", "--check", "--offline", "--python", sys.executable)
        assert locked.returncode == 0, locked.stderr
    generated = run_in(renamed, "python", "deploy/generate.py")
    assert (generated.returncode, git(renamed, "status", "--porcelain")) == (0, "")


@pytest.mark.parametrize("needy", [NAME, LONG])
def test_two_clones_stand_under_one_parent_chart(needy: str, renamed: Path, tmp_path: Path) -> None:
    """Helm has one set of names for the templates of all its charts: what one clone needs was asked of the other."""
    for name, chart in ((NAME, ROOT / "helm"), (LONG, renamed / "helm")):
        shutil.copytree(chart, tmp_path / "charts" / name, ignore=shutil.ignore_patterns("ci", "*.py", "__pycache__"))
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: both\nversion: 1.0.0\n")
    known = tmp_path / "charts" / needy / "templates" / "_settings.tpl"
    text = known.read_text().replace('"required": {', '"required": {"SERVICE_OF": "what is needed"')
    known.write_text(text.replace('"config": [', '"config": ["SERVICE_OF",'))
    values = {name: {"database": {"existingSecret": "db"}} for name in (NAME, LONG)}

    where = re.escape(f"charts/{needy}/templates/checks.yaml")
    with helm_python.Chart.load(tmp_path) as parent, pytest.raises(helm_python.HelmError, match=f"{where}.*SERVICE_OF"):
        parent.render(values, name="demo", namespace="prod")


def test_the_clone_s_pages_are_its_own_and_the_template_s_lie_with_the_platform(renamed: Path) -> None:
    kept = renamed / "service" / "platform" / "docs"

    assert (renamed / "README.md").read_text().startswith(f"# {LONG.replace('-', ' ').capitalize()}\n")
    assert (kept / "README.md").read_text().startswith(f"# {TITLE}\n")
    assert {"README.md", "SECURITY.md", "CHANGELOG.md", "DECISIONS.md"} == {path.name for path in kept.iterdir()}


def test_the_documents_are_true(renamed: Path) -> None:
    """Links, verbs, targets; the README's requests are answered by the renamed service."""
    done = run_in(renamed, "pytest", "-q", "-p", "no:cacheprovider", "tests/docs/test_docs.py")

    assert done.returncode == 0, done.stdout[-3000:]


def test_a_second_name_takes_the_first_one_s_places(renamed: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(renamed, tmp_path / "again", symlinks=True))
    same = run_in(again, *RENAME, LONG)
    assert (same.returncode, git(again, "status", "--porcelain")) == (0, "")

    done = run_in(again, *RENAME, "shop")
    assert done.returncode == 0, done.stderr
    assert 'NAME = "shop"' in (again / "service" / "platform" / "name.py").read_text()
    left = git(again, "grep", "-il", "-e", LONG, "-e", LONG.replace("-", " ")).splitlines()
    assert set(left) <= {"docs/your-clone.md"}


def test_of_the_clone_s_pages_only_what_a_rename_wrote_takes_a_second_name(renamed: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(renamed, tmp_path / "again", symlinks=True))
    readme = again / "README.md"
    own = f"The service that {LONG.replace('-', ' ').capitalize()} has been since 2019."
    readme.write_text(f"{readme.read_text()}\n{own}\n")
    (again / "SECURITY.md").unlink()
    commit(again)
    done = run_in(again, *RENAME, "shop")

    assert done.returncode == 0, done.stderr
    assert readme.read_text().startswith("# Shop\n")
    assert own in readme.read_text()
    assert not (again / "SECURITY.md").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "say what it is to be called"),
        ("Shop", "lower-case letters"),
        ("my_shop", "lower-case letters"),
        ("shop-", "lower-case letters"),
        ("s" * 41, "at most 40"),
        ("service", "is the name of a package"),
        ("quart", "is the name of a package"),
    ],
)
def test_a_bad_name_is_refused_in_a_sentence(pristine: Path, name: str, said: str) -> None:
    done = run_in(pristine, *RENAME, name)

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert git(pristine, "status", "--porcelain") == ""


def test_it_refuses_when_it_could_not_be_undone(clone: Path) -> None:
    (clone / "notes.txt").write_text("mine")
    done = run_in(clone, *RENAME, "shop")

    assert (done.returncode, git(clone, "status", "--porcelain")) == (1, "?? notes.txt\n")
    assert "commit or stash first" in done.stderr


def test_it_writes_over_nothing_that_git_was_told_not_to_show(clone: Path) -> None:
    git(clone, "config", "status.showUntrackedFiles", "no")
    mine = clone / "deploy" / "systemd" / "shop.service"
    mine.write_text("mine")
    done = run_in(clone, *RENAME, "shop")

    assert (done.returncode, mine.read_text()) == (1, "mine")
    assert "?? deploy/systemd/shop.service" in done.stderr


def test_it_leaves_what_git_ignores_as_it_is(clone: Path) -> None:
    """Git could not bring it back; and what a file browser has left in a folder is no text, nor need yours be UTF-8."""
    units = clone / "deploy" / "systemd"
    with (clone / ".gitignore").open("a") as ignored:
        ignored.write("local.conf\n.DS_Store\n")
    (clone / "service" / "platform" / "runbook.md").write_bytes(other := b"caf\xe9\r\n")
    commit(clone)
    (units / ".DS_Store").write_bytes(b"\0Bud1\xff")
    (units / "local.conf").write_text(mine := f"of {NAME}.service\n")
    done = run_in(clone, *RENAME, "shop")

    assert (done.returncode, done.stderr) == (0, "")
    assert (units / "local.conf").read_text() == mine
    assert (clone / "service" / "platform" / "runbook.md").read_bytes() == other


@pytest.mark.parametrize("name", ["shop", f"{NAME}-migrate"])
def test_it_writes_over_no_file_that_has_the_name_already(clone: Path, name: str) -> None:
    """Such as one that git ignores, or another of those that are to be moved."""
    with (clone / ".gitignore").open("a") as ignored:
        ignored.write("shop.service\n")
    commit(clone)
    (clone / "deploy" / "systemd" / "shop.service").write_text("mine")
    done = run_in(clone, *RENAME, name)

    assert done.returncode == 1
    assert f"deploy/systemd/{name}.service is there already" in done.stderr
    assert git(clone, "status", "--porcelain") == ""
    assert (clone / "deploy" / "systemd" / "shop.service").read_text() == "mine"


def test_a_folder_of_a_larger_repository_is_renamed_and_updated_elsewhere(pristine: Path, tmp_path: Path) -> None:
    """It was told to `git init`, which makes a repository within the other."""
    folder = Path(shutil.copytree(pristine, tmp_path / "services" / "shop", ignore=shutil.ignore_patterns(".git")))
    begin(tmp_path)
    commit(tmp_path)
    updated = run_in(folder, "python", "deploy/update.py", "--from", str(pristine))
    renamed = run_in(folder, *RENAME, "shop")

    assert (updated.returncode, renamed.returncode, renamed.stderr) == (1, 0, "")
    assert "this is a folder of a larger repository" in updated.stderr
    changed = [line[3:] for line in git(tmp_path, "status", "--porcelain").splitlines()]
    assert changed
    assert [name for name in changed if not name.startswith("services/shop/")] == []
    assert 'name = "shop"' in (folder / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        ((), "commit it there, or `git init`"),
        (("config", "core.repositoryFormatVersion", "99"), "fatal: "),
    ],
    ids=["of which it has nothing", "that git does not read"],
)
def test_it_is_said_how_a_larger_repository_gets_it(
    pristine: Path, tmp_path: Path, prepare: tuple[str, ...], said: str
) -> None:
    """`git init` alone makes a repository within the other, also where git only mistrusts that one's owner."""
    folder = Path(shutil.copytree(pristine, tmp_path / "services" / "shop", ignore=shutil.ignore_patterns(".git")))
    begin(tmp_path)
    if prepare:
        git(tmp_path, *prepare)
    done = run_in(folder, *RENAME, "shop")

    assert done.returncode == 1
    assert said in done.stderr
    assert "no git clone" not in done.stderr


def test_your_own_document_may_be_in_another_encoding_as_may_its_name(clone: Path) -> None:
    mine = clone / os.fsdecode(b"caf\xe9.md")
    mine.write_bytes(b"A caf\xe9: [read](CHANGELOG.md)\n")
    commit(clone)
    done = run_in(clone, *RENAME, "shop")

    assert done.returncode == 0, done.stdout + done.stderr
    assert mine.read_bytes() == b"A caf\xe9: [read](service/platform/docs/CHANGELOG.md)\n"


def test_one_that_was_interrupted_is_not_taken_for_done(clone: Path) -> None:
    pyproject = clone / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(f'\nname = "{NAME}"\n', '\nname = "shop"\n'))
    done = run_in(clone, *RENAME, "shop")

    assert (done.returncode, git(clone, "status", "--porcelain")) == (1, " M pyproject.toml\n")
    assert "git status says\n M pyproject.toml" in done.stderr


@pytest.mark.parametrize(("record", "holder"), [("removed = \n", "Example Ltd"), ("", "Example\nLtd")])
def test_what_cannot_be_recorded_changes_nothing(clone: Path, record: str, holder: str) -> None:
    (clone / ".template.toml").write_text(record)
    commit(clone)
    done = run_in(clone, *RENAME, "shop", "--holder", holder)

    assert (done.returncode, git(clone, "status", "--porcelain")) == (1, "")
    assert "nothing was changed: " in done.stderr


@pytest.mark.ci
def test_it_fits_together(renamed: Path) -> None:
    """Its suite is run where the sample has been taken out as well, as it is from most clones."""
    done = type_check(renamed)

    assert done.returncode == 0, done.stdout
