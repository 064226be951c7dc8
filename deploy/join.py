"""Join the heads of the migrations that two branches brought: .venv/bin/python deploy/join.py

Both stay as they are, since databases may have run either, and a migration that does nothing comes after the two. It
serves what both serve. Then it is linted, and databases of each release come to it, as the tests do it.
"""

import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from deploy import migration  # after the path above
from deploy.clone import ROOT, Refused, ask, command, run, say  # the same


def main() -> None:
    argparse.ArgumentParser(description="Join the heads of the migrations that two branches brought.").parse_args()
    written = join()
    say(f"written: {written.relative_to(ROOT)}")
    migration.try_out(written)


def join() -> Path:
    """Let Alembic write the migration that comes after all heads; return its file. Needs no database."""
    heads = find_heads()
    if len(heads) < 2:
        raise Refused("the migrations have one head: there is nothing to join" if heads else "there is no migration")
    written = migration.let_alembic_write("merge", "heads", "-m", f"join {' and '.join(heads)}")
    if ask("rev-parse", "--verify", "--quiet", "MERGE_HEAD"):  # it is of the merge: committed or left with that
        run("git", "add", "--", str(written))
    return written


def find_heads() -> list[str]:
    from alembic.script import ScriptDirectory  # here: imports take their time, in which Ctrl-C may come

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # two files with one revision are a warning of Alembic's
        try:
            return sorted(ScriptDirectory(str(migration.VERSIONS.parent)).get_heads())
        except Exception as error:  # whatever a migration's own code raises as it is imported
            raise Refused(f"the migrations cannot be read: {type(error).__name__}: {error}") from error


if __name__ == "__main__":
    command(main)
