"""Errors of PostgreSQL without the values that its words repeat: an error that leaves a unit is logged whole.

`diag` of the driver's error still has everything, for code that decides by it.
"""

from collections.abc import Iterator

import psycopg
from sqlalchemy.exc import DBAPIError

# Data exceptions: even their first sentence quotes the value that was refused.
QUOTING_CLASS = "22"


def hide_values(error: BaseException) -> None:
    """Shorten the texts of an error and of those behind it to what names tables, columns and constraints only."""
    for each in _behind(error):
        if isinstance(each, psycopg.Error) and each.sqlstate:
            each.args = (_first_sentence(each),)
        elif isinstance(each, DBAPIError) and isinstance(each.orig, psycopg.Error) and each.orig.sqlstate:
            kind = type(each.orig)
            each.args = (f"({kind.__module__}.{kind.__qualname__}) {_first_sentence(each.orig)}",)


def _first_sentence(error: psycopg.Error) -> str:
    quotes = (error.sqlstate or "").startswith(QUOTING_CLASS)
    sentence = "a value was refused" if quotes else error.diag.message_primary or "PostgreSQL gave no reason"
    return f"{sentence} (SQLSTATE {error.sqlstate})"


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, the members of a group, and what each was raised from and during: all of it is shown."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__]
            waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()


def flat(words: object) -> str:
    """Return words on one line; psycopg's and libpq's, which may be several, never hold a password."""
    return " ".join(str(words).split())
