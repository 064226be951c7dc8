"""What pydantic takes in the place of what is declared, and another reader of the description would not.

That is `nan` and `inf` as texts for a number, which JSON has no word for; and a number for a moment, which it takes for
seconds since 1970: of the date-time "2026" it would make 33 minutes past the midnight of 1 January 1970.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from quart import current_app
from quart_schema.validation import QUART_SCHEMA_REQUEST_ATTRIBUTE
from werkzeug.routing import Rule

from service.platform.errors import Invalid, cut
from service.platform.http.openapi.schemas import SparseSchema, json_schema

# What every body has to have, that holds one: most have none of it, and are not looked at.
_INFINITE = rb'"[\s\x80-\xff]*+[-+]?_*(?:n_*a_*n|i_*n_*f)|e_*\+?[\d_]{2,}|(?<![\d_])[\d_]{300}|\\u'
_NUMBER = rb'[:,\[{]\s*+(?:"\s*+)?[-+]?[\d.]++(?:e[-+]?\d++)?\s*+[",\]}]'
_MAYBE_INFINITE = re.compile(_INFINITE, re.IGNORECASE)
_MAYBE_EITHER = re.compile(_INFINITE + b"|" + _NUMBER, re.IGNORECASE)

_MOMENTS = {
    "date": "a date, such as 2026-01-31",
    "date-time": "a date and time, such as 2026-01-31T12:00:00Z",
    "time": "a time, such as 12:00:00",
    "duration": "a duration, such as P1DT2H",
}
_DIGITS = re.compile(r"\s*[-+]?[\d.]+(?:[eE][-+]?\d+)?\s*")


def refuse_mistaken(body: bytes, document: object, rule: Rule | None) -> None:
    """Raise Invalid for such a value in a body."""
    view = None if rule is None else current_app.view_functions[rule.endpoint]
    for model in getattr(view, QUART_SCHEMA_REQUEST_ATTRIBUTE, ())[:1]:
        schema, definitions, maybe = _schema(model)
        if maybe is not None and maybe.search(body):
            for path, value, wanted in _mistaken(document, schema, definitions, (), {}):
                raise Invalid(f"{cut('.'.join(path)) or 'body'}: must be {wanted}, not {cut(str(value))!r}")


def wanted_within(value: object, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return what is declared in the place of such a value, also by each kind of a union; nothing for any other."""
    return next((wanted for _, _, wanted in _mistaken(value, schema, definitions, (), {})), "")


def wanted_of(value: object, schema: Mapping[str, Any]) -> str:
    """Return what is declared in the place of such a value; nothing for any other."""
    if schema.get("type") == "number" and isinstance(value, str) and is_infinite(value):
        return "a finite number"
    if schema.get("type") == "string" and (not isinstance(value, str) or _DIGITS.fullmatch(value)):
        return _MOMENTS.get(schema.get("format", ""), "")
    return ""


def is_infinite(text: str) -> bool:
    """Whether a text is a number to Python, and none to JSON."""
    try:
        return not math.isfinite(float(text.replace("_", "")))  # pydantic takes it out of words as well
    except ValueError:
        return False


def resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with what it refers to in its place."""
    return {**definitions.get(schema.get("$ref", "").rpartition("/")[2], {}), **schema}


@cache
def _schema(model: type) -> tuple[dict[str, Any], dict[str, Any], re.Pattern[bytes] | None]:
    """Return the schema of a model, what it refers to, and what a body has that is to be looked at, if any is."""
    schema, definitions = json_schema(model, generator=SparseSchema)
    text = f"{schema}{definitions}"
    if any(f"'format': '{moment}'" in text for moment in _MOMENTS):
        return schema, definitions, _MAYBE_EITHER
    return schema, definitions, _MAYBE_INFINITE if "'type': 'number'" in text else None


type _Found = tuple[tuple[str, ...], object, str]
type _Looked = dict[tuple[int, ...], list[_Found]]  # by the ids of a value and of the kinds of a union


def _mistaken(
    value: object, schema: Mapping[str, Any], definitions: Mapping[str, Any], path: tuple[str, ...], looked: _Looked
) -> Iterator[_Found]:
    """Yield the place of each, the value, and what is declared. What nothing is declared of is passed over."""
    if not schema or value is None:
        return
    schema = resolved(schema, definitions)
    if kinds := [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        yield from _mistaken_by_all(value, kinds, definitions, path, looked)
    if isinstance(value, list):
        yield from _mistaken_members(value, schema, definitions, path, looked)
    elif isinstance(value, dict):
        known, names = schema.get("properties", {}), schema.get("propertyNames")
        others = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), None)
        for name, inner in value.items():
            if names is not None and (wanted := wanted_of(name, {"type": "string"} | names)):
                yield (*path, name), name, wanted
            within = known.get(name, others)
            if isinstance(within, dict) and (_is_open(within) or wanted_of(inner, within)):
                yield from _mistaken(inner, within, definitions, (*path, name), looked)
    elif wanted := wanted_of(value, schema):
        yield path, value, wanted


def _mistaken_by_all(
    value: object, union: list[dict[str, Any]], definitions: Mapping[str, Any], path: tuple[str, ...], looked: _Looked
) -> list[_Found]:
    """Return the same of a value that may be of several kinds; nothing where one of them finds nothing.

    In a union that holds itself each level would multiply what is looked at: what holds others is looked at once.
    """
    place = (id(value), *map(id, union))
    if place in looked:
        return looked[place]
    kinds = [kind for one in union if _may_be(kind := resolved(one, definitions), value, definitions)]
    whole = [kind for kind in kinds if _has_all(value, kind)] or kinds  # what is wanted may have other names, too
    found = [list(_mistaken(value, kind, definitions, path, looked)) for kind in whole]
    told = found[0] if found and all(found) else []
    if len(whole) > 1 and _holds_others(value):
        looked[place] = told
    return told


def _holds_others(value: object) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(one, dict | list) for one in inner)


def _mistaken_members(
    value: list[Any], schema: Mapping[str, Any], definitions: Mapping[str, Any], path: tuple[str, ...], looked: _Looked
) -> Iterator[_Found]:
    """Yield the same of a list."""
    first, rest = schema.get("prefixItems", ()), resolved(schema.get("items", {}), definitions)
    right: set[object] = set()  # the looks of texts and numbers that are not mistaken there, nor are others of it
    is_alike = ("anyOf" in rest or "oneOf" in rest) and not _tells_values(rest, definitions)
    for number in _suspects(value, first, rest):
        within = first[number] if number < len(first) else rest
        look = _look(value[number]) if is_alike and within is rest else None
        if look in right:
            continue
        mistaken = _mistaken(value[number], within, definitions, (*path, str(number)), looked)
        if look is None:
            yield from mistaken
        elif found := list(mistaken):
            yield from found
        else:
            right.add(look)


def _suspects(values: list[Any], first: Sequence[Any], rest: Mapping[str, Any]) -> Iterable[int]:
    """Return which of a list are to be looked at: a list may be as long as a body, and is mostly of one kind."""
    if first or _is_open(rest):
        return range(len(values))
    if rest["type"] == "number":
        return (number for number, one in enumerate(values) if isinstance(one, str))
    if rest.get("format") in _MOMENTS:
        return (number for number, one in enumerate(values) if not isinstance(one, str) or _DIGITS.fullmatch(one))
    return ()


def _look(value: object) -> object:
    """Return what it depends on what is found of a text or number, where no values are told; None for others."""
    if isinstance(value, str):
        return is_infinite(value), _DIGITS.fullmatch(value) is not None
    return None if isinstance(value, list | dict) else type(value)


def _tells_values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether a schema, or a kind of its union, takes some values alone."""
    if _values(schema, definitions) is not None:
        return True
    whole = resolved(schema, definitions)
    return any(_tells_values(one, definitions) for word in ("anyOf", "oneOf") for one in whole.get(word, ()))


def _is_open(schema: Mapping[str, Any]) -> bool:
    """Whether there is more in a schema than what a single text or number may be."""
    return schema.get("type", "object") in {"object", "array"}


def _may_be(kind: Mapping[str, Any], value: object, definitions: Mapping[str, Any]) -> bool:
    """Whether a value may be of a kind of a union, as far as its type and the tags that tell kinds apart say."""
    if (values := _values(kind)) is not None:
        return value in values
    if not isinstance(value, dict):
        return kind.get("type") in _may_take(value, kind)
    fields = kind.get("properties", {}).items()  # one that is not there may have a default
    tags = ((name, _values(field, definitions)) for name, field in fields if name in value)
    return kind.get("type", "object") == "object" and all(
        values is None or value[name] in values for name, values in tags
    )


def _has_all(value: object, kind: Mapping[str, Any]) -> bool:
    return not isinstance(value, dict) or value.keys() >= set(kind.get("required", ()))


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any] = MappingProxyType({})) -> list[Any] | None:
    """Return the values of which a schema takes one, None for any other schema."""
    whole = resolved(schema, definitions) if "$ref" in schema else schema
    values: list[Any] | None = whole.get("enum", [whole["const"]] if "const" in whole else None)
    return values


def _may_take(value: object, kind: Mapping[str, Any]) -> Collection[str | None]:
    """Return the types that such a value is taken for; None is one that is not told."""
    if isinstance(value, list):
        return (None, "array")
    if isinstance(value, str):
        return (None, "number", "string") if is_infinite(value) else (None, "number", "string", "integer", "boolean")
    numbers = (None, "number", "integer", "boolean")
    return (*numbers, "string") if "format" in kind else numbers  # a plain text is none that a number stands for
