"""Copies of this repository in which a test may change, remove and run things; they share its environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent


def copy_repository(to: Path) -> Path:
    """Copy what git tracks or would track, as one commit of a repository of its own."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        source, target = ROOT / name, to / name
        if source.exists():  # it may have been removed and not staged
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    git(to, "init", "--quiet")
    commit(to)
    return to


def commit(copy: Path) -> None:
    git(copy, "add", "--all")
    git(copy, "-c", "user.name=tests", "-c", "user.email=tests@example.org", "commit", "--quiet", "-m", "as it is")


def git(where: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout


def run_in(copy: Path, *command: str, seconds: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment, on the copy's code."""
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def type_check(copy: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy with what it knows of the unchanged files from here; what it learns here is of use to the next."""
    cache = ROOT / ".mypy_cache"
    if not cache.is_dir():
        run_in(ROOT, "mypy")
    shutil.copytree(cache, copy / ".mypy_cache", dirs_exist_ok=True)
    return run_in(copy, "mypy", "--no-error-summary")
