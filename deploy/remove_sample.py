"""Take the sample, the chat, out of a clone: `make without-sample`, or deploy/remove_sample.py --dry-run

What goes: the sample's folders and its migration, this script, and each line of another file that ends in a comment
`sample`, or `sample: …`. What is generated is made anew. Nothing is staged or committed, so `git restore .` undoes it.
"""

import argparse
import ast
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from deploy.clone import (  # after the path above
    ROOT,
    Refused,
    answer,
    command,
    follow_up,
    lock,
    run,
    say,
    template_page,
    tracked,
)
from deploy.marks import cut  # the same
from deploy.origin import need_clone_to_record, remember  # the same

HOME = "service/chat/"
THIS = "deploy/remove_sample.py"
GOES = (HOME, "tests/chat/", THIS)
MIGRATIONS = "migrations/versions/"
CACHED = re.compile(r"\.pyc$|(^|/)(__pycache__|\.\w+_cache|\.hypothesis)/")
OWN_MIGRATION = re.compile(rf"{MIGRATIONS}\d{{4}}_chat\.py")  # yours may be called add_chat_archive
# The only files that may have marked lines; a test looks whether any other has.
README = str(template_page("README.md").relative_to(ROOT))
MARKED_FILES = (".ci/run", README, "docs/capacity.md", "pyproject.toml", "service/features.py")

REMOVED = ROOT / "migrations" / "removed.toml"
KEPT = "The database in .data still has the sample's tables; `service dev --forget` goes on with it and leaves them."
NEXT = """
The sample is out. Next:
  make test                  # gets the environment without what only the sample needed, and tries everything
  git add --all && git commit -m "Remove the sample"
Another database that the sample's migration has run on goes on by `service migrate --forget`; its tables stay.
To undo this: git restore . && git clean -f migrations/removed.toml .template.toml"""


@dataclass(frozen=True)
class Removal:
    """What is to go: whole files, and of others the text that stays."""

    files: list[str]
    texts: dict[str, str]
    cuts: dict[str, int]  # lines that go, by file
    revisions: dict[str, str]  # the sample's migrations, and what is before each
    later: frozenset[str]  # your migrations that came after it, and come after what is before it from now on

    def before(self) -> str:
        """Return the revision before all of the sample's; "" when there is none."""
        return next((one for one in self.revisions.values() if one not in self.revisions), "")

    def lines(self) -> Iterator[str]:
        yield from (f"remove  {name}" for name in self.files)
        yield from (f"put down {name}" for name in sorted(self.later))
        yield from (f"cut     {name}: {count} lines" for name, count in self.cuts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the sample out of this clone.")
    parser.add_argument("--dry-run", action="store_true", help="only list what would go")
    parser.add_argument("--database", choices=("ask", "downgrade", "keep"), default="ask", help="the one in .data")
    given = parser.parse_args()
    removal = plan(look())
    refuse_what_git_ignores()
    if given.dry_run:
        say("\n".join(removal.lines()))
        return
    kept = take_database_back(removal, given.database)
    apply(removal)
    remember(removed=["sample"])
    tidy()
    (ROOT / THIS).unlink()  # last: without it, it has been done
    say(f"{len(removal.files)} files and {sum(removal.cuts.values())} lines of {len(removal.cuts)} others went.")
    say(f"{NEXT}\n{KEPT}" if kept else NEXT)


def take_database_back(removal: Removal, choice: str) -> bool:
    """Undo the sample's migration on the development database if asked to; return whether it was left as it is."""
    if not (ROOT / ".data" / "postgres").exists() or not removal.revisions:
        return False
    if choice == "ask" and sys.stdin.isatty():
        said = answer("Drop the sample's tables, and what is in them, from the development database in .data? [y/N] ")
        choice = "downgrade" if said.lower() in {"y", "yes"} else "keep"
    if choice != "downgrade":
        return True
    if removal.later:
        raise Refused("your own migrations came after the sample's, and would be undone too: use DATABASE=keep")
    from alembic.util import CommandError

    from service.features import FEATURES
    from service.platform.database import EmbeddedUnavailable, MigrationRefused, ServerAway
    from service.platform.database.development_schema import take_back
    from service.platform.feature import catalogue
    from service.platform.settings import SettingsError
    from service.settings import Settings

    try:
        settings, _ = catalogue(Settings, FEATURES).load()
        take_back(settings, removal.before() or "base", ROOT / ".data")
    except (CommandError, EmbeddedUnavailable, MigrationRefused, ServerAway, SettingsError) as error:
        raise Refused(f"{error}; `--database keep` leaves the database as it is") from error
    return False


def look() -> list[str]:
    """Return the tracked files, if this is a clone from which the sample can be removed."""
    names = tracked()
    need_clone_to_record()  # first: one that was interrupted is not taken for done
    if not any(name.startswith(HOME) for name in names):
        raise Refused(f"there is no {HOME}: the sample has been removed already")
    if not ruff().exists():
        raise Refused(f"{ruff()} is missing: run `make check`, and this with .venv/bin/python")
    return names


def refuse_what_git_ignores() -> None:
    """Refuse where the sample's folders have files that would go and that git could not bring back; caches may go."""
    ignored = run("git", "ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", *GOES[:2])
    for name in ignored.split("\0")[:-1]:
        if not CACHED.search(name):
            raise Refused(f"{name}, which git ignores, would go with the sample for good: move it first")


def plan(names: list[str]) -> Removal:
    files = [name for name in names if name.startswith(GOES) or OWN_MIGRATION.fullmatch(name)]
    revisions = before_each(files)
    texts, cuts = put_below(names, files, revisions), {}
    later = frozenset(texts)
    for name in MARKED_FILES:
        before = (ROOT / name).read_text()
        texts[name] = cut(before, "sample")
        cuts[name] = len(before.splitlines()) - len(texts[name].splitlines())
    return Removal(files, texts, cuts, revisions, later)


def before_each(files: list[str]) -> dict[str, str]:
    """Return the revision before each removed one; "" before the first."""
    migrations = [name for name in files if name.startswith(MIGRATIONS)]
    return {
        revision: "".join(named(name, "down_revision")) for name in migrations for revision in named(name, "revision")
    }


def put_below(names: list[str], files: list[str], revisions: dict[str, str]) -> dict[str, str]:
    """Return your migrations that build on the sample's with what is before the sample's in its place.

    A database that has run them is at one of them, and so is none the wiser; the sample's tables stay in it.
    """
    texts = {}
    yours = [name for name in names if name.startswith(MIGRATIONS) and name.endswith(".py") and name not in files]
    children = [name for name in yours if (named(name, "down_revision") | named(name, "depends_on")) & revisions.keys()]
    for name in children:
        if len(named(name, "down_revision")) > 1 or named(name, "depends_on"):
            raise Refused(f"{name} builds on the sample's migration and on another: mend that by hand first")
    before = next((one for one in revisions.values() if one not in revisions), "")
    first = before or next((own for name in children for own in named(name, "revision")), "")
    for name in yours:
        text = before_text = (ROOT / name).read_text()
        for variable, word in (("down_revision", before), ("serves_from", first)):
            for gone in revisions:
                quoted = rf"(?m)^({variable}\b[^=\n]*= )[\"']{re.escape(gone)}[\"']"
                text = re.sub(quoted, lambda found, word=word: found[1] + (f'"{word}"' if word else "None"), text)
        if text != before_text:
            texts[name] = text
    return texts


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


def apply(removal: Removal) -> None:
    for name in removal.files:
        if name != THIS:
            (ROOT / name).unlink()
    for folder in GOES[:2]:
        shutil.rmtree(ROOT / folder, ignore_errors=True)  # what is left are caches
    lines = [f'"{revision}" = "{before}"\n' for revision, before in removal.revisions.items()]
    REMOVED.write_text(
        "# Migrations that were taken out, and the one before each: for databases that have run them.\n"
        + "".join(lines)
    )
    for name, text in removal.texts.items():
        (ROOT / name).write_text(text)


def tidy() -> None:
    """Mend what follows: what is generated, and the lock file. What fails is told, and the removal stands."""
    follow_up(sys.executable, "deploy/generate.py")
    lock()
    follow_up(str(ruff()), "check", "--quiet")


def ruff() -> Path:
    return Path(sys.executable).with_name("ruff")


if __name__ == "__main__":
    command(main)
