"""A clone's life, by the commands that the documents name: a name, a feature, no sample, edits, a newer template.

It is a real clone with an environment of its own, which both orders share, as they share uv's cache.
"""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from service.platform.testing.copies import ROOT, UV, commit, copy_repository, git, hand_on_types, run_in

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(
        (ROOT / ".template.toml").exists(), reason="tried on the template; this clone has lived already"
    ),
    pytest.mark.skipif(not Path(UV).exists(), reason="needs uv"),
]
FAST = (
    *("tests/test_orders.py", "tests/docs/test_docs.py", "tests/platform/settings"),
    *("tests/platform/test_architecture.py", "tests/platform/test_migrations.py"),
)
ORDERS = {
    "a name first": ("rename", "feature", "without-sample", "edit", "update"),
    "a newer template first": ("without-sample", "feature", "edit", "update", "without-hello", "rename"),
}

type Live = Callable[..., str]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = copy_repository(tmp_path_factory.mktemp("template") / "template")
    git(copy, "tag", "v0.1.0")
    for name in git(copy, "ls-files", "service/platform/*.py").split()[:50]:
        with (copy / name).open("a") as file:
            file.write("\n# of a later version\n")
    for name in ("README.md", "docs/capacity.md"):
        with (copy / name).open("a") as file:
            file.write("\nA later version says more.\n")
    base = copy / "service" / "platform" / "settings" / "base.py"
    base.write_text(base.read_text().replace("further ones get 503.", "all others get 503."))
    assert run_in(copy, "ruff", "format", "--quiet").returncode == 0
    assert run_in(copy, "python", "deploy/generate.py").returncode == 0
    commit(copy)
    git(copy, "tag", "v0.2.0")
    return copy


@pytest.fixture(scope="module")
def clone(template: Path) -> Iterator[Path]:
    """Yield a clone on the disk, where uv links what is a gigabyte elsewhere."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as place:
        yield _clone(template, Path(place) / "clone")


def _clone(template: Path, copy: Path) -> Path:
    git(template.parent, "clone", "--quiet", str(template), str(copy))
    git(copy, "config", "user.name", "tests")
    git(copy, "config", "user.email", "tests@example.org")
    hand_on_types(copy)
    return copy


@pytest.fixture
def live(clone: Path, server_url: str) -> Live:
    """Return what runs a command in the clone as its owner would, and commits what it made."""
    path = os.pathsep.join((str(Path(UV).parent), os.environ["PATH"]))
    kept = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}

    def do(*command: str) -> str:
        done = subprocess.run(
            command,
            cwd=clone,
            env=kept | {"PATH": path, "TEST_DATABASE_URL": server_url},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        assert "failed; mend this" not in done.stdout
        if git(clone, "status", "--porcelain"):
            git(clone, "add", "--all")
            git(clone, "commit", "--quiet", "-m", " ".join(command))
        return done.stdout

    return do


def edit(clone: Path, live: Live) -> None:
    with (clone / "helm" / "values.yaml").open("a") as file:
        file.write("# ours\n")
    settings = clone / "service" / "settings.py"
    text = settings.read_text().replace("\nfrom service", "\nfrom pydantic import Field\n\nfrom service", 1)
    settings.write_text(text + '\n    shop: str = Field(examples=["berlin"], description="Which shop this is.")\n')
    required = clone / "helm" / "ci" / "required.yaml"
    required.write_text(required.read_text().replace("\n{}\n", "\nconfig: {SERVICE_SHOP: berlin}\n"))
    (clone / "tests" / "platform" / "http" / "test_requests.py").unlink()
    live("make", "generate")


@pytest.mark.parametrize("order", ORDERS)
def test_a_clone_lives(order: str, clone: Path, live: Live) -> None:
    git(clone, "checkout", "--quiet", "--force", "-B", order.replace(" ", "-"), "v0.1.0")
    git(clone, "clean", "--quiet", "-df")
    steps: dict[str, Callable[[], object]] = {
        "rename": lambda: live("make", "rename", "NAME=acme-shop", "HOLDER=Example Ltd"),
        "feature": lambda: live("make", "feature", "NAME=orders"),
        "without-sample": lambda: live("make", "without-sample"),
        "without-hello": lambda: live("make", "without-hello"),
        "edit": lambda: edit(clone, live),
        "update": lambda: live("make", "update"),
    }
    for step in ORDERS[order]:
        before = _spent()
        steps[step]()
        print(f"{step}: {_spent() - before:.1f} s of processor time")
    rooms = ("tests/platform/test_rooms.py",) if "without-hello" in ORDERS[order] else ()  # with the least that is left
    for command in (("make", "check"), (".venv/bin/pytest", "-q", *FAST, *rooms)):
        before = _spent()
        live(*command)
        print(f"{' '.join(command[:2])}: {_spent() - before:.1f} s of processor time")

    assert (clone / "service" / "platform" / "__init__.py").read_text().endswith("# of a later version\n")
    assert "# SERVICE_SHOP=" in (clone / ".env.example").read_text()
    assert "all others get 503." in (clone / ".env.example").read_text()
    assert 'NAME = "acme-shop"' in (clone / "service" / "platform" / "name.py").read_text()
    assert git(clone, "status", "--porcelain") == ""


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
