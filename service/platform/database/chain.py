"""The revisions of migrations in an order, from their files' text: a process that serves needs no Alembic.

Sees nothing but the plain form that `make migration` and `make join` write. What has another is for `revisions`, which
runs the files.
"""

import re
from collections.abc import Sequence
from pathlib import Path

_ASSIGNED = re.compile(r"^(revision|down_revision|branch_labels|depends_on)\b(.*)$", re.MULTILINE)
_TEXT = r"""(?:"[^"'\\]+"|'[^"'\\]+')"""
_PLAIN = re.compile(rf"(?::[^=]*)?\s*=\s*(None|{_TEXT}|\({_TEXT}(?:,\s*{_TEXT})+\))\s*(?:\#.*)?")
_BETWEEN_QUOTES = re.compile(r"""["']([^"']+)["']""")


def read_chain(migrations: Path) -> Sequence[str] | None:
    """Return the revisions, each after those it stands on; None when the files do not say so plainly, or are wrong.

    The last one is the head: there are one head and one first revision, whatever branches are between them.
    """
    before: dict[str, tuple[str, ...]] = {}
    files = [file for file in (migrations / "versions").glob("*.py") if not file.name.startswith((".#", "__init__"))]
    try:
        texts = [file.read_text(errors="replace") for file in files]
    except OSError:  # `revisions` says which, and why
        return None
    for said in map(_said, texts):
        if said is None or len(own := said.get("revision", ())) != 1 or own[0] in before:
            return None
        before[own[0]] = said.get("down_revision", ())
    firsts = [revision for revision, parents in before.items() if not parents]
    heads = before.keys() - {parent for parents in before.values() for parent in parents}
    chain: dict[str, None] = {}  # a set that keeps an order
    while following := [one for one in before if one not in chain and chain.keys() >= set(before[one])]:
        chain |= dict.fromkeys(following)
    return [*chain] if len(chain) == len(before) and len(firsts) == len(heads) == 1 else None


def _said(text: str) -> dict[str, tuple[str, ...]] | None:
    """Return what a file assigns; None unless each name has at most one line, which is None, a text or several."""
    said: dict[str, tuple[str, ...]] = {}
    for name, rest in _ASSIGNED.findall(text):
        plain = _PLAIN.fullmatch(rest)
        if plain is None or name in said:
            return None
        said[name] = tuple(_BETWEEN_QUOTES.findall(plain[1]))
    return None if said.get("branch_labels") or said.get("depends_on") else said
