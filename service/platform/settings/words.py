"""Settings in words: ranges, values as they may be shown, the nearest name. Pure; knows no setting by name."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_json

from service.platform.settings.kinds import (
    SECRETS,
    fields,
    has_names,
    holds_secret,
    is_list,
    is_own,
    json_form,
    kind_of,
)
from service.platform.settings.types import ADDRESS, SecretURL

# A name is taken for a misspelt setting within one edit, and one more for each so many letters.
SHORTEST, LETTERS_FOR_ONE_MORE, MOST = 4, 9, 3
# What stands before the host of an address: such a one may be given to a setting that takes none, by mistake.
_PASSWORD = re.compile(r"(?s)^(\s*[\w+.-]+://|[^@:]*:).*@")
# What is nothing, or something else, between commas.
_UNCLEAR = re.compile(r"^$|^\[|,").search


def is_secret(info: FieldInfo) -> bool:
    """Return whether a value holds a secret, be it in a part of it."""
    return holds_secret(info.annotation)


def describe_range(info: FieldInfo) -> str:
    """Return what a setting may be, as in "a whole number from 1 to 500"."""
    kind, rules = kind_of(info.annotation)
    rules = [*info.metadata, *rules]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _bounds(rules)
    words, size = "a secret" if is_secret(info) else "a path" if kind is Path else "a text", _size(rules)
    if (form := _form(info.annotation)) and not is_own(rules):
        words, size = f"{words}, as {form}" if is_secret(info) else form, ""
    if info.examples:
        return f"{words}{size}, such as {info.examples[0]}" if size else f"such as {info.examples[0]}"
    return words + size


def _form(annotation: Any) -> str:
    """Return in which form parts are given; nothing where there are none."""
    if form := json_form(annotation):
        return f"a JSON {form}"
    return "a list with commas" if is_list(annotation) else ""


def _bounds(rules: Iterable[Any]) -> str:
    least, above, most, below = (_rule(rules, name) for name in ("ge", "gt", "le", "lt"))
    if least is not None and most is not None:
        return f" from {least} to {most}"
    words = {"from": least, "above": above, "up to": most, "below": below}
    return " and".join(f" {word} {bound}" for word, bound in words.items() if bound is not None)


def _size(rules: Iterable[Any]) -> str:
    least, most = _rule(rules, "min_length"), _rule(rules, "max_length")
    if least and most is not None:
        return f" of {least} to {most} characters" if least != most else f" of {most} characters"
    if least:
        return f" of at least {least} character{'s' * (least > 1)}"
    return "" if most is None else f" of up to {most} characters"


def _rule(rules: Iterable[Any], name: str) -> Any:
    """Return what rules say under a name of pydantic's, such as `ge`; None when none does."""
    return next((getattr(rule, name) for rule in rules if getattr(rule, name, None) is not None), None)


def shown(value: object) -> str:
    """Return a value as it may be shown to anybody, and as the environment would give it; passwords are replaced."""
    match value:
        case SecretURL():
            return value.shown()
        case SecretStr():
            return "***"
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return str(int(value) if value.is_integer() else value)
    if is_list(type(value)):
        return _shown_list(value)
    return _json(value) if has_names(type(value)) else str(value)


def _shown_list(value: Any) -> str:
    texts = list(map(shown, value))
    if any(map(is_list, kinds := set(map(type, value)))) or any(map(has_names, kinds)) or any(map(_UNCLEAR, texts)):
        return _json(value)
    return ",".join(sorted(texts) if isinstance(value, set | frozenset) else texts)


def _json(value: Any) -> str:
    return to_json(_masked(value)).decode()


def _masked(value: Any) -> Any:
    """Return what holds no secret as it is, and of another all parts, lest a serializer of its own tells them."""
    if isinstance(value, SECRETS):
        return shown(value)
    if isinstance(value, Mapping):
        return {name: _masked(one) for name, one in value.items()}
    if is_list(type(value)):
        return list(map(_masked, value))
    if has_names(type(value)) and holds_secret(type(value)):
        return {name: _masked(getattr(value, name)) for name in fields(type(value))}
    return value


def sentence(variable: str, info: FieldInfo, error: ErrorDetails) -> str:
    """Return one line: the variable, its value unless it is a secret, without a password in it, and what it may be."""
    if (inside := error["loc"][1:]) and error["type"] != ADDRESS:
        where, why = ".".join(map(str, inside)), error["msg"][:1].lower() + error["msg"][1:]
        return f"{variable}: must be {describe_range(info)}; {where}: {why}"
    if error["type"] == "missing":
        return f"{variable}: must be set ({describe_range(info)})"
    given = error["input"]
    value = "" if is_secret(info) else f"{given!r} "
    told = f"{variable}: {value}{error['msg'] if error['type'] == ADDRESS else f'must be {describe_range(info)}'}"
    return told.replace(repr(given), repr(_PASSWORD.sub(r"\1***@", given))) if isinstance(given, str) else told


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is most likely a misspelling of, or None when none is near.

    How near that is grows with the name: platforms set SERVICE_ID and SERVICE_VERSION, which mean no setting of ours.
    """
    short = name.partition("_")[2]  # without what all of them begin with
    most = 0 if len(short) < SHORTEST else 1 + len(short) // LETTERS_FOR_ONE_MORE
    distance, near = min((edit_distance(name, other), other) for other in known)
    return near if 0 < distance <= min(most, MOST) else None


def edit_distance(left: str, right: str) -> int:
    """Return how many characters to insert, delete, replace or swap with a neighbour make one the other."""
    rows: list[list[int]] = [list(range(len(right) + 1))]
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and b == left[i - 2]:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]
