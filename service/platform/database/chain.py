"""The revisions of migrations that stand in one line, from their files' text: a process that serves needs no Alembic.

Sees nothing but the plain form that `make migration` writes. What has another is for `revisions`, which runs the files.
"""

import re
from collections.abc import Sequence
from pathlib import Path

_ASSIGNED = re.compile(r"^(revision|down_revision|branch_labels|depends_on)\b(.*)$", re.MULTILINE)
_PLAIN = re.compile(r"""(?::[^=]*)?\s*=\s*(?:None|"([^"\\]+)"|'([^'\\]+)')\s*(?:\#.*)?""")


def read_chain(migrations: Path) -> Sequence[str] | None:
    """Return the revisions, the oldest first; None when the files do not say so plainly, or are wrong."""
    after: dict[str | None, str] = {}
    files = [file for file in (migrations / "versions").glob("*.py") if not file.name.startswith((".#", "__init__"))]
    for file in files:
        said = _said(file.read_text(errors="replace"))
        if said is None or (parent := said.get("down_revision")) in after or (own := said.get("revision")) is None:
            return None
        after[parent] = own
    chain: list[str] = []
    while (following := after.get(chain[-1] if chain else None)) is not None and following not in chain:
        chain.append(following)
    return chain if files and len(chain) == len(files) else None


def _said(text: str) -> dict[str, str | None] | None:
    """Return what a file assigns; None unless each name has at most one line, which is a text or None."""
    said: dict[str, str | None] = {}
    for name, rest in _ASSIGNED.findall(text):
        plain = _PLAIN.fullmatch(rest)
        if plain is None or name in said:
            return None
        said[name] = plain[1] or plain[2]
    return said if said.get("branch_labels") is None and said.get("depends_on") is None else None
