"""Lines that go with a feature: each ends in a comment that is the feature's word, or begins with it and a colon."""

import re


def cut(text: str, word: str) -> str:
    """Return a text without its marked lines, nor the second of two blank lines that this brings together."""
    # A cell of a table may end after the comment.
    marked = re.compile(rf"(?:#|<!--)\s*{word}(?::.*|\s*(?:-->)?[\s|]*)$")
    kept: list[str] = []
    joined = False
    for line in text.splitlines(keepends=True):
        if marked.search(line):
            joined = True
        elif not (joined and not line.strip() and (not kept or not kept[-1].strip())):
            kept.append(line)
            joined = False
    return "".join(kept)
