"""Why a start failed, in a few lines for whoever has just saved a file: what, in which file and line, and the code."""

import traceback
from itertools import dropwhile
from pathlib import Path

from service.platform.errors import leaves
from service.platform.reload.colours import BOLD, DIM, PLAIN, RED

# How many of the calls that led to an error are shown: the innermost ones of one's own code.
CALLS = 3
SAID = 12  # lines of what an error says, at most


def describe(error: BaseException, root: Path, *, coloured: bool) -> str:
    """Return the lines. Paths are shown relative to `root`, whose files are one's own."""
    red, bold, dim, plain = (RED, BOLD, DIM, PLAIN) if coloured else ("", "", "", "")
    lines = [""]
    for one in leaves(error):
        first, *others = words(one)
        what, _, more = first.partition(": ")
        lines += [f"  {red}{what}{plain}{': ' if more else ''}{bold}{more}{plain}"]
        lines += [f"    {bold}{line}{plain}" for line in others[: SAID - 1]]
        for place, code in places(one, root):
            lines += [f"    {bold}{place}{plain}", *(f"      {dim}{line}{plain}" for line in code)]
        lines += [""]
    return "\n".join(lines)


def words(error: BaseException) -> list[str]:
    """Return what an error is and says, its notes too, in its own lines: some say what is wrong in the first."""
    parts = traceback.format_exception_only(error)
    return "".join(dropwhile(lambda part: part.startswith(" "), parts)).strip().splitlines()  # without its place


def places(error: BaseException, root: Path) -> list[tuple[str, list[str]]]:
    """Return where the error is: `file:line` and the code there, of one's own files if any had a part in it."""
    if isinstance(error, SyntaxError) and error.filename:
        text = (error.text or "").rstrip()
        shift = len(text) - len(text.lstrip())
        caret = [" " * max(0, (error.offset or 1) - 1 - shift) + "^"] if text and error.offset else []
        return [(f"{shown(error.filename, root)}:{error.lineno}", [text.strip(), *caret] if text else [])]
    calls = traceback.extract_tb(error.__traceback__)
    own = [call for call in calls if is_own(call.filename, root)]
    return [
        (f"{shown(call.filename, root)}:{call.lineno} in {call.name}", [call.line] if call.line else [])
        for call in (own or calls[-1:])[-CALLS:]
    ]


def is_own(file: str, root: Path) -> bool:
    path = Path(file)
    return path.is_relative_to(root) and not {".venv", "site-packages"} & set(path.parts)


def shown(file: str, root: Path) -> str:
    path = Path(file)
    return str(path.relative_to(root)) if path.is_relative_to(root) else file
