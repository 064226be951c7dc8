"""How a new migration is written: what migrations/script.py.mako puts into it, and the tidying when it is there."""

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory, write_hooks

from service.platform.database.revisions import newest_served


def as_docstring(message: str) -> str:
    """Return a message in the form in which a docstring can start with it, whatever is in it."""
    words = " ".join(message.replace("\\", "\\\\").replace('"', "'").split()) or "What it does"
    return "\n".join(textwrap.wrap(words if words.endswith((".", "!", "?")) else f"{words}.", 110))


def served_by_addition(config: Config, revision: str, before: str | tuple[str, ...] | None) -> str:
    """Return what a migration serves that only adds: the same code as those before it, or its own as the first.

    Not the migration before it: of two in one release the second would then stop serving the code that runs.
    """
    if before is None:
        return revision
    parents = (before,) if isinstance(before, str) else before
    return newest_served(ScriptDirectory.from_config(config), parents) or revision


@write_hooks.register("tidy")
def tidy(path: str, _options: Mapping[str, object]) -> None:
    """Bring a new migration into the style that the check wants: Alembic writes other quotes, and imports unused."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        print(f"{path} is not tidied: ruff is not installed here; `make check` brings it", file=sys.stderr)  # noqa: T201  Alembic's own way
        return
    for arguments in (("check", "--fix-only", "--quiet"), ("format", "--quiet")):
        subprocess.run([ruff, *arguments, path], check=False)
