"""Make a feature with a table, routes, a migration and a test: .venv/bin/python deploy/feature.py NAME

The files come from deploy/feature; the feature's line goes into service/features.py. What is made is clean and green at
once, and is yours to change. When something fails, nothing of it stays.
"""

import argparse
import keyword
import re
import shutil
import subprocess
import sys
from collections.abc import Container
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from deploy import migration  # after the path above
from deploy.clone import ROOT, Refused, command, rewrite, say  # the same

GOOD_NAME = re.compile(r"[a-z][a-z0-9_]{1,29}")
TEMPLATES = ROOT / "deploy" / "feature"
FEATURES = ROOT / "service" / "features.py"
IMPORT, TUPLE = "from service.platform.feature import Feature\n", "\n)\n"

NEXT = """
service/{name}, tests/test_{name}.py, {migration} and a line in service/features.py are there, and tried. Next:
  make run                   # curl -s -d '{{"text": "one"}}' -H 'Content-Type: application/json' http://127.0.0.1:8000/api/{path}
  docs/add-a-feature.md      # what each part is for
Its routes are for @anyone; docs/identity.md says who else there is, and how routes are limited."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a feature with a table, routes, a migration and a test.")
    parser.add_argument("name", nargs="?", default="")
    name = parser.parse_args().name
    written = make(name)
    migration.try_out(written, f"tests/test_{name}.py")
    say(NEXT.format(name=name, path=path_of(name), migration=written.relative_to(ROOT)))


def make(name: str) -> Path:
    """Write all of it, or nothing; return the migration's file."""
    refuse_bad(name)
    kept = FEATURES.read_text()
    try:
        write_files(name)
        add_line(name, kept)
        written = migration.write(f"add_{name}")
    except BaseException:
        take_back(name, kept)
        raise
    subprocess.run([migration.BIN / "ruff", "check", "--fix-only", "--quiet", FEATURES], cwd=ROOT, check=False)
    return written


def refuse_bad(name: str) -> None:
    if not GOOD_NAME.fullmatch(name):
        raise Refused(
            f"{name!r} is no name for a feature: use lower-case letters, digits and _, a letter first, 2 to 30 of "
            "them: make feature NAME=orders"
        )
    if keyword.iskeyword(name):
        raise Refused(f"{name} is a word of Python's: choose another name")
    taken = [ROOT / "service" / name, ROOT / "service" / f"{name}.py", ROOT / "tests" / f"test_{name}.py"]
    if there := [str(path.relative_to(ROOT)) for path in taken if is_there(path)]:
        raise Refused(
            f"{there[0]} is there already: choose another name, or, where a run that was killed has left it, "
            "take back what `git status` shows"
        )
    if name.startswith("pg_"):
        raise Refused(f"{name} would be the name of a table, and PostgreSQL's own begin with pg_: choose another name")
    if name in tables():
        raise Refused(f"there is a table {name} already: choose another name")
    if name in blueprints():
        raise Refused(f"the platform has a blueprint {name} already: choose another name")
    if IMPORT not in (text := FEATURES.read_text()) or text.count(TUPLE) != 1:
        raise Refused("service/features.py has another form than this knows: copy a feature by hand")


def tables() -> Container[str]:
    """Return the names of the tables of the platform and of all features, and of those that migrations write."""
    import service.platform.verbs.tables  # noqa: F401  here: a bad name is refused at once
    from service.features import FEATURES
    from service.platform.database import metadata
    from service.platform.database.schema import STATE_TABLE
    from service.platform.feature import import_all

    import_all(FEATURES)
    return {*metadata.tables, STATE_TABLE, "alembic_version"}


def blueprints() -> set[str]:
    """Return the names of the platform's blueprints, of which an app takes one each."""
    files = (ROOT / "service" / "platform").rglob("*.py")
    return {name for file in files for name in re.findall(r'Blueprint\("(\w+)"', file.read_text())}


def is_there(path: Path) -> bool:
    """Return whether a file or a folder is there; one that holds only bytecode is another branch's."""
    return path.is_file() or any(one.is_file() and one.suffix != ".pyc" for one in path.rglob("*"))


def path_of(name: str) -> str:
    return name.replace("_", "-")


def write_files(name: str) -> None:
    folder = ROOT / "service" / name
    folder.mkdir(exist_ok=True)
    title = name.replace("_", " ").capitalize()
    words = {"name": name, "NAME": name.upper(), "path": path_of(name), "title": title}
    targets = {one: folder / f"{one}.py" for one in ("__init__", "store", "routes")}
    for template, target in (targets | {"test": ROOT / "tests" / f"test_{name}.py"}).items():
        text = (TEMPLATES / f"{template}.py.in").read_text()
        target.write_text(re.sub(r"@(name|NAME|path|title)@", lambda word: words[word[1]], text))
    files = [folder, ROOT / "tests" / f"test_{name}.py"]
    subprocess.run([migration.BIN / "ruff", "check", "--fix-only", "--quiet", *files], cwd=ROOT, check=False)
    subprocess.run([migration.BIN / "ruff", "format", "--quiet", *files], cwd=ROOT, check=False)


def add_line(name: str, text: str) -> None:
    text = text.replace(IMPORT, f"from service.{name} import {name.upper()}\n{IMPORT}")
    rewrite(FEATURES, text.replace(TUPLE, f"\n    {name.upper()},{TUPLE}"))


def take_back(name: str, features: str) -> None:
    shutil.rmtree(ROOT / "service" / name, ignore_errors=True)  # first: on a full disk it makes room
    (ROOT / "tests" / f"test_{name}.py").unlink(missing_ok=True)
    rewrite(FEATURES, features)


if __name__ == "__main__":
    command(main)
