"""Settings in words: ranges, values as they may be shown, the nearest name. Pure; knows no setting by name."""

from collections.abc import Iterable
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from service.platform.settings.types import ADDRESS, SecretURL

# A name is taken for a misspelt setting within one edit, and one more for each so many letters.
SHORTEST, LETTERS_FOR_ONE_MORE, MOST = 4, 9, 3


def is_secret(info: FieldInfo) -> bool:
    return "SecretStr" in str(info.annotation)


def describe_range(info: FieldInfo) -> str:
    """Return what a setting may be, as in "a whole number from 1 to 500"."""
    low = next((rule.ge for rule in info.metadata if isinstance(rule, Ge)), None)
    high = next((rule.le for rule in info.metadata if isinstance(rule, Le)), None)
    if low is not None:
        return f"{'a whole number' if info.annotation is int else 'a number'} from {low} to {high}"
    if get_origin(info.annotation) is Literal:
        return "one of " + ", ".join(get_args(info.annotation))
    if info.annotation is bool:
        return "true or false"
    return f"such as {(info.examples or [''])[0]}"


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
            return f"{value:g}"
        case tuple():
            return ",".join(map(shown, value))
    return str(value)


def sentence(variable: str, info: FieldInfo, error: ErrorDetails) -> str:
    """Return one line: the variable, its value unless it is a secret, and what it may be."""
    value = "" if is_secret(info) else f"{error['input']!r} "
    return f"{variable}: {value}{error['msg'] if error['type'] == ADDRESS else f'must be {describe_range(info)}'}"


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
