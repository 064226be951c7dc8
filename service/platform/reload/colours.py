"""Whether the terminal shows colours, those that are used, and a line of the console's own."""

import os
import sys

RED, GREEN, YELLOW, BOLD, DIM, PLAIN = "\x1b[31;1m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[2m", "\x1b[0m"


def is_coloured() -> bool:
    """True for a person at a terminal who has not set NO_COLOR (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def line_of(colour: str, words: str, *, coloured: bool) -> str:
    """Return what stands among the lines of the log, and is none."""
    return f"  {colour}{words}{PLAIN}" if coloured else f"  {words}"
