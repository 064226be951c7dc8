"""Copies of this repository in which a test may change, remove and run things; they share its environment."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import cache_from_source
from pathlib import Path
from tempfile import TemporaryDirectory

from service.platform.testing.processes import STAND_INS
from service.platform.testing.throwaway import directory_in_memory

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
UV = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")  # where deploy/setup.sh has it; a copy has none
SIDE_BY_SIDE = ("-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder")  # as the Makefile says it
CACHE = ROOT / ".mypy_cache"
# Tests whose features, if they have any, are their own: which ones the service has makes no difference to them.
KNOW_OF_NO_FEATURE = (
    *(f"tests/platform/{name}" for name in ("client", "database", "inside", "jobs", "reload", "server", "telemetry")),
    *(f"tests/platform/identity/test_{name}.py" for name in ("keys", "many", "may", "metrics", "sign_in", "tokens")),
    *(f"tests/platform/test_{name}.py" for name in ("calls", "kept", "lifecycle", "setup")),
    "tests/platform/verbs/test_migrate.py",  # adds a migration of its own to whatever there is
)
# What a hook of git's sets: a test that it runs would commit its copy to the repository of the hook.
OF_ANOTHER_REPOSITORY = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
}
MARK = re.compile(r"# (sample|hello)$")
NO_FEATURES = {"__init__", "__main__", "features", "platform", "settings"}
TESTS = {"__init__.py", "conftest.py", "clone", "docs", "helm", "platform", "system"}
BEGIN = (
    '"""Yours: the table of contents, one line a feature."""',
    "",
    "from service.platform.feature import Feature",
    "",
    "FEATURES: tuple[Feature, ...] = (",
    "    # a line for each, also when it is the only one",
)


def template_page(name: str) -> Path:
    """Return where a page of the template is: at the top, or with the platform once the clone has a name of its own."""
    kept = ROOT / "service" / "platform" / "docs" / name
    return kept if kept.exists() else ROOT / name


_first: list[Path] = []


def copy_repository(to: Path) -> Path:
    """Copy what git tracks or would track, as one commit of a repository of its own.

    The first copy of a run stays as it is, for a copy of that takes a tenth of the time.
    """
    if not _first or not _first[0].exists():
        _first[:] = [_copy_tracked(to.with_name(f"{to.name}-untouched"))]
    shutil.copytree(_first[0], to, symlinks=True, dirs_exist_ok=True)
    return to


def _copy_tracked(to: Path) -> Path:
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).exists():  # it may have been removed and not staged
            _copy_file(name, to)
            if name.endswith(".py"):
                for compiled in _compiled(name):
                    _copy_file(compiled, to)  # else each process compiles it, a quarter of its start
    begin(to)
    commit(to)
    git(to, "repack", "-a", "-d", "--quiet")  # 26 files to copy instead of 834
    return to


def _compiled(name: str) -> list[str]:
    """Return where bytecode of a module is beside it: Python's own, and of a test pytest's."""
    if sys.pycache_prefix:
        return []
    own = Path(cache_from_source(name))
    return [str(own.with_name(path.name)) for path in (ROOT / own.parent).glob(f"{own.stem}*.pyc")]


def _copy_file(name: str, to: Path) -> None:
    (to / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / name, to / name, follow_symlinks=False)


def strip_features(copy: Path, *, keep_template_s: bool) -> None:
    """Take the features out, with their tests and migrations, and commit it; the template's own may stay.

    Those have a mark at the end of their lines in features.py. What a clone wrote itself may be called as something is
    that a test is going to write.
    """
    features = copy / "service" / "features.py"
    marked = [line for line in features.read_text().splitlines() if MARK.search(line)] if keep_template_s else []
    kept = {name for line in marked for name in re.findall(r"service\.(\w+)", line)}
    versions = copy / "migrations" / "versions"
    migrations = re.compile(rf"\d{{4}}_({'|'.join(('platform_.*', *kept))})\.py")
    tests = TESTS | kept | {f"test_{name}.py" for name in kept}
    for gone in (
        *(path for path in (copy / "service").iterdir() if path.name.removesuffix(".py") not in NO_FEATURES | kept),
        *(path for path in (copy / "tests").iterdir() if path.name not in tests),
        *(path for path in versions.iterdir() if not migrations.fullmatch(path.name)),
        versions.parent / "rows",
    ):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
    imports = [line for line in marked if line.startswith("from ")]
    lines = [line for line in marked if line.startswith(" ")]
    features.write_text("\n".join([*BEGIN[:2], *imports, *BEGIN[2:], *lines, ")", ""]))
    commit(copy)


def begin(copy: Path) -> None:
    """Make a repository of a folder, which git does not pack in the background: a test may copy it meanwhile."""
    git(copy, "init", "--quiet")
    git(copy, "config", "maintenance.auto", "false")


def commit(copy: Path) -> None:
    git(copy, "add", "--all")
    git(
        copy,
        "-c",
        "user.name=tests",
        "-c",
        "user.email=tests@example.org",
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        "as it is",
    )


def git(where: Path, *arguments: str) -> str:
    """Run git on the repository of that folder: not one that a hook names, nor with hooks and keys of yours."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER_REPOSITORY}
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", *arguments]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=True).stdout


def run_in(copy: Path, *command: str, seconds: float = 1200, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment, on the copy's code.

    Of pytest each run has a directory of its own for what it leaves: runs that share one tidy up after each other, at
    once, and one that finds no more what it removes has failed.
    """
    with directory_in_memory() as memory, TemporaryDirectory(ignore_cleanup_errors=True) as on_disk:
        left = str(memory or on_disk)
        own = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "", "PYTEST_DEBUG_TEMPROOT": left}
        return subprocess.run(
            [BIN / command[0], *command[1:]],
            cwd=copy,
            env=os.environ | own | STAND_INS | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )


def run_suite(copy: Path, *which: str, without: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a copy's tests, but those that are left out, and print the end of what they said."""
    left_out = [f"--ignore={name}" for name in (*KNOW_OF_NO_FEATURE, *without)]
    said = ("-q", "--tb=short", "--show-capture=no", "-p", "no:cacheprovider")
    beside = (*SIDE_BY_SIDE, "-n", "2")  # most often it runs beside the suite that asks
    done = run_in(copy, "pytest", *said, *beside, *left_out, *which)
    print(done.stdout[-3000:])
    return done


@contextmanager
def one_mypy() -> Iterator[None]:
    """Wait until nobody else of the tests writes what mypy knows of the files here."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "one-at-a-time").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def type_check(copy: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy with what it knows of the unchanged files from here."""
    hand_on_types(copy)
    return run_in(copy, "mypy", "--no-error-summary")


def hand_on_types(copy: Path) -> None:
    """Give a copy what mypy knows of the files here."""
    with one_mypy():
        if not (CACHE / "CACHEDIR.TAG").exists():
            run_in(ROOT, "mypy")
        shutil.copytree(CACHE, copy / CACHE.name, dirs_exist_ok=True)
