"""Take the sample, the chat, out of a clone: .venv/bin/python deploy/remove_sample.py [--dry-run]

What goes: tracked files with the sample's name in their path, the files in WHOLE, and marked lines: those that end in
the comment `# sample`, and those from a comment `# sample begins` to `# sample ends`, however a file writes comments.
Nothing is staged or committed, so `git restore .` undoes it.
"""

import argparse
import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "chat"
HOME = f"service/{NAME}/"
MIGRATIONS = "migrations/versions/"
# What only the sample uses and does not carry its name.
WHOLE = (
    "deploy/remove_sample.py",
    "docs/images/",
    "tests/chat/system/balancer.py",
    "tests/chat/browser/",
    "tests/chat/system/audience.py",
    "tests/chat/system/black_hole.py",
    "tests/chat/system/broken_service.py",
    "tests/chat/system/checker.py",
    "tests/chat/system/cluster.py",
    "tests/chat/system/conftest.py",
    "tests/chat/system/crowd.py",
    "tests/chat/system/storm.py",
    "tests/chat/system/test_checker.py",
    "tests/chat/test_removal.py",
    "service/platform/testing/wire.py",
)
HISTORY = ("CHANGELOG.md",)  # what was, was

OPENS = r"(?:#|//|<!--|/\*)\s*"
CLOSES = r"\s*(?:-->|\*/)?[\s|}-]*$"  # a cell of a table, or a template's braces, may end after the comment
MARKED = re.compile(OPENS + "sample" + CLOSES)
BEGINS = re.compile(OPENS + r"sample begins\b")
ENDS = re.compile(OPENS + r"sample ends\b")

NEXT = """
The sample is out. Next:
  make test                  # gets the environment without what only the sample needed, and tries everything
  git add --all && git commit -m "Remove the sample"
  rm -r .data                # the database of `service dev`, which still has the sample's tables; if there is one
A database that the sample's migration has run on cannot be migrated further: start your own feature's on a new one.
To undo this: git restore ."""


class Refused(Exception):
    """Why nothing was changed."""


@dataclass(frozen=True)
class Removal:
    """What is to go: whole files, and of others the text that stays."""

    files: list[str]
    texts: dict[str, str]
    cuts: dict[str, int]  # lines that go, by file

    def lines(self) -> Iterator[str]:
        yield from (f"remove  {name}" for name in self.files)
        yield from (f"cut     {name}: {count} lines" for name, count in self.cuts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the sample out of this clone.")
    parser.add_argument("--dry-run", action="store_true", help="list what would go, and change nothing")
    arguments = parser.parse_args()
    try:
        tracked = look()
        removal = plan(tracked)
        for line in removal.lines():
            say(line)
        if not arguments.dry_run:
            apply(removal, tracked)
            tidy()
            say(NEXT)
    except Refused as refused:
        sys.exit(f"nothing was changed: {refused}")


def look() -> list[str]:
    """Return the tracked files, if this is a clone from which the sample can be removed."""
    if not (ROOT / ".git").exists():
        raise Refused("this is no git clone, so it could not be undone")
    tracked = run("git", "ls-files", "-z").split("\0")[:-1]
    if not any(name.startswith(HOME) for name in tracked):
        raise Refused(f"there is no {HOME}: the sample has been removed already")
    if changed := run("git", "status", "--porcelain"):
        raise Refused(f"commit or stash first, so that it can be undone; git status says\n{changed}")
    if not ruff().exists():
        raise Refused(f"{ruff()} is missing: run `make check`, and this with .venv/bin/python")
    return tracked


def plan(tracked: list[str]) -> Removal:
    files = [name for name in tracked if NAME in name.lower() or name.startswith(WHOLE)]
    refuse_later_migrations(tracked, files)
    texts, cuts = {}, {}
    for name in tracked:
        path = ROOT / name
        if name in files or name.startswith(HISTORY) or path.is_symlink():
            continue
        try:
            before = path.read_text()
        except UnicodeDecodeError:
            continue
        after = cut(name, before)
        if after != before:
            texts[name] = after
            cuts[name] = len(before.splitlines()) - len(after.splitlines())
    return Removal(files, texts, cuts)


def refuse_later_migrations(tracked: list[str], files: list[str]) -> None:
    migrations = [name for name in tracked if name.startswith(MIGRATIONS) and name.endswith(".py")]
    ours = {revision for name in migrations if name in files for revision in named(name, "revision")}
    for name in migrations:
        below = named(name, "down_revision") | named(name, "depends_on")
        if name not in files and below & ours:
            raise Refused(
                f"{name} builds on the sample's migration {', '.join(below & ours)}, which databases may have run; "
                "remove what else is the sample's by hand, keep that migration, and add one that drops its tables"
            )


def named(migration: str, variable: str) -> set[str]:
    """Return the revisions that a migration assigns to a variable of its module."""
    for node in ast.parse((ROOT / migration).read_text()).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            return {
                part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
    return set()


def cut(name: str, text: str) -> str:
    """Return a text without its marked lines, nor the second of two blank lines that this brings together."""
    kept: list[str] = []
    inside = joined = False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        begins, ends = bool(BEGINS.search(line)), bool(ENDS.search(line))
        if (inside and begins) or (ends and not inside):
            raise Refused(f"{name}:{number}: a mark of the sample without its other half")
        if inside or begins or MARKED.search(line):
            inside, joined = (inside or begins) and not ends, True
        elif not (joined and not line.strip() and (not kept or not kept[-1].strip())):
            kept.append(line)
            joined = False
    if inside:
        raise Refused(f"{name}: a mark of the sample begins and does not end")
    return "".join(kept)


def apply(removal: Removal, tracked: list[str]) -> None:
    for name in removal.files:
        (ROOT / name).unlink()
    for name, text in removal.texts.items():
        (ROOT / name).write_text(text)
    staying = {str(parent) for name in tracked if name not in removal.files for parent in Path(name).parents}
    for folder in {str(Path(name).parent) for name in removal.files} - staying:
        shutil.rmtree(ROOT / folder, ignore_errors=True)  # what is left are caches


def tidy() -> None:
    """Mend what follows from the code: unused imports, what is generated, the lock file."""
    run(str(ruff()), "check", "--fix", "--quiet")
    run(str(ruff()), "format", "--quiet")
    run(sys.executable, "deploy/generate.py")
    uv = shutil.which("uv") or shutil.which(ROOT / ".uv" / "bin" / "uv")
    if uv is None:
        say("uv is not here: bring uv.lock up to date with `uv lock`")
    else:
        run(uv, "lock", "--quiet", "--offline")  # it only has to leave packages out


def ruff() -> Path:
    return Path(sys.executable).with_name("ruff")


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def say(line: str) -> None:
    print(line)  # noqa: T201  a program for the terminal


if __name__ == "__main__":
    main()
