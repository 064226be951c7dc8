"""Which migrations were edited after the development database had applied them: it is not as their files say any more.

Their text as it was applied is kept beside that database. Nothing else can tell: a database knows a migration by name.
"""

import ast
import json
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

KEPT = "migrations.json"  # beside the server's files: the mark, and the text of each revision
_REVISION = re.compile(r"""^revision\b[^=\n]*=\s*["']([^"']+)["']""", re.MULTILINE)


def edited_since(data: Path, migrations: Path, *, applied: Collection[str], mark: str) -> list[str]:
    """Return the revisions whose files do other than what was applied, of a database that has applied them all.

    What was `applied` just now is kept as it is; all is where it was others who migrated last, by the files as they
    were then: that is when `mark` has changed and nothing was applied. Comments, docstrings and the form do not count.
    """
    known, kept = _read(data)
    if not applied and mark != known:
        kept = {}
    now = dict(_texts(migrations))
    new = {revision: text for revision, text in now.items() if revision in applied or revision not in kept}
    if new or mark != known:
        with suppress(OSError):  # as on a full disk: then nothing is told later on
            (data / KEPT).write_text(json.dumps([mark, kept | new]))
    return sorted(one for one, text in now.items() if one not in new and not _same(kept[one], text))


def _read(data: Path) -> tuple[str, dict[str, str]]:
    try:
        mark, texts = json.loads((data / KEPT).read_text())
    except (OSError, ValueError):
        return "", {}
    return mark, texts


def _texts(migrations: Path) -> Iterator[tuple[str, str]]:
    for file in (migrations / "versions").glob("[!.]*.py"):  # an editor's lock is a link to nowhere
        text = file.read_text(errors="replace")
        if found := _REVISION.search(text):
            yield found[1], text


def _same(one: str, other: str) -> bool:
    return one == other or _code(one) == _code(other)


def _code(text: str) -> str:
    tree = ast.parse(text)
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    return ast.dump(tree)
