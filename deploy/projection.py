"""A version of the template as this clone would have made it: under its name, without what it removed.

Made by that version's own tools, in a work tree of its own; nothing of the clone is touched.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.clone import AS_TEXT, ROOT, TEMPLATE_DOCS, Refused, attempt, project_name, run
from deploy.origin import Origin

# What a clone counts by itself: its own stands in both versions of the template, so that no update changes it.
VERSIONS = (
    ("pyproject.toml", r'(?m)^version = "[^"]*"$'),
    ("helm/Chart.yaml", r"(?m)^version: .*$"),
    ("helm/Chart.yaml", r"(?m)^appVersion: .*$"),
    ("deploy/compose.yaml", r"(?m)^  image: {name}:\S+$"),
    ("uv.lock", r'\nname = "{name}"\nversion = "[^"]*"\n'),
)
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HOOKLESS = ("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false")


def project(commit: str, origin: Origin) -> str:
    """Return a tree object: the template's commit with the name and the removals of a clone.

    Raises Refused when one of that version's tools does.
    """
    with _work_tree(commit) as tree:
        if _is_renamed(tree, origin.name) and _is_there(tree, "deploy/rename.py"):
            _apply(tree, "deploy/rename.py", origin.name, *(("--holder", origin.holder) if origin.holder else ()))
        for what in origin.removed:
            if _is_there(tree, tool := f"deploy/remove_{what}.py"):
                _apply(tree, tool)
        for name, pattern in VERSIONS:
            _keep_version(tree / name, ROOT / name, pattern.format(name=re.escape(origin.name)))
        origin.write(tree)
        _git(tree, "add", "--all", "--force", ".template.toml")
        _git(tree, "add", "--all")
        return _git(tree, "write-tree").strip()


@contextmanager
def _work_tree(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="template-") as directory:
        tree = Path(directory) / "tree"
        try:
            # In two steps, for `worktree add` leaves the second to another git, which goes on when the first is killed.
            run("git", *HOOKLESS, "worktree", "add", "--quiet", "--detach", "--no-checkout", str(tree), commit)
            _git(tree, *HOOKLESS, "reset", "--quiet", "--hard")
            yield tree
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
            shutil.rmtree(tree, ignore_errors=True)  # a half made one git would not remove, nor, with one force, forget
            attempt("git", "worktree", "remove", "--force", "--force", str(tree))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def _apply(tree: Path, tool: str, *arguments: str) -> None:
    """Run a tool, and commit what it did: the next one wants a clean tree."""
    path = os.pathsep.join((str(ROOT / ".uv" / "bin"), os.environ.get("PATH", os.defpath)))
    done = subprocess.run(
        [sys.executable, tool, *arguments],
        cwd=tree,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path},
        stdin=subprocess.DEVNULL,
        check=False,
        **AS_TEXT,
    )
    if done.returncode:
        raise Refused(f"the template's own {tool} failed: {done.stderr.strip() or done.stdout.strip()}")
    _git(tree, "add", "--all")
    _git(tree, *HOOKLESS, "commit", "--quiet", "--allow-empty", "-m", tool)


def _is_renamed(tree: Path, name: str) -> bool:
    """Return whether the clone was given a name by the command, and has not just a holder of its own."""
    return project_name(tree) != name or (ROOT / TEMPLATE_DOCS / "README.md").exists()


def _keep_version(there: Path, here: Path, pattern: str) -> None:
    if not (there.exists() and here.exists()):
        return
    own = re.search(pattern, here.read_text())
    if own is not None:
        there.write_text(re.sub(pattern, lambda _: own[0], there.read_text(), count=1))


def _is_there(tree: Path, name: str) -> bool:
    return (tree / name).exists()


def _git(tree: Path, *arguments: str) -> str:
    return run("git", "-C", str(tree), *arguments)
