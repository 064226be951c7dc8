"""The migrations' files: the revisions in them, and which code each one serves. `written` holds how a new one is made.

Reads files, never a database. Raises MigrationsWrong for files that cannot be used, with what would mend them.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path

from alembic.script import Script, ScriptDirectory

from service.platform.database.redaction import flat
from service.platform.database.refusals import MigrationsWrong


def read_scripts(migrations: Path) -> ScriptDirectory:
    """Return the migrations of a directory, all of them read, with one head or none."""
    scripts = ScriptDirectory(str(migrations))
    try:
        if (versions := migrations / "versions").exists():
            list(versions.iterdir())  # one that may not be read is an empty one to Alembic, and all would be well
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # two files with one revision are a warning of Alembic's
            heads = sorted(scripts.get_heads())
            list(scripts.walk_revisions())
    except Exception as error:  # whatever a migration's own code raises as it is imported
        raise MigrationsWrong(f"the migrations in {migrations} cannot be read: {_reason(error)}") from error
    if len(heads) > 1:
        names = " and ".join(heads)
        raise MigrationsWrong(f"the migrations have {len(heads)} heads, {names}: `make join` writes one after them")
    return scripts


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {flat(error)}"


def ancestors(scripts: ScriptDirectory, revision: str) -> set[str]:
    """Return a revision and all before it."""
    return {script.revision for script in scripts.iterate_revisions(revision, "base")}


def declared(scripts: ScriptDirectory, script: Script) -> str:
    """Return the oldest revision whose code a migration says to serve."""
    serves_from: str | None = getattr(script.module, "serves_from", None)
    if serves_from not in (known := ancestors(scripts, script.revision)):
        meant = next((one for one in known if _file_of(scripts, one).endswith(f"_{serves_from}")), None)
        raise MigrationsWrong(
            f"migration {script.revision}: `serves_from` must be the `revision` of it or of one before it; it is "
            f"{serves_from!r}{f', which is how the file of {meant!r} is named' if meant else ''}"
        )
    return serves_from


def _file_of(scripts: ScriptDirectory, revision: str) -> str:
    return Path(scripts.get_revision(revision).path).stem


def newest_served(scripts: ScriptDirectory, revisions: Iterable[str]) -> str | None:
    """Return the oldest revision whose code can work where all of these are applied; None when there is none.

    One revision alone says it itself. Of several, which stand on branches, each has its own demand, and code that knows
    the newest of them knows all.
    """
    wanted = {declared(scripts, scripts.get_revision(revision)) for revision in revisions}
    return next((one for one in sorted(wanted) if wanted <= ancestors(scripts, one)), None)
