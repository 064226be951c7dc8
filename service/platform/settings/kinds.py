"""What kind of value a setting is, by its annotation: one, several, or what has parts with names. Knows no setting."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from types import UnionType
from typing import Annotated, Any, TypeAliasType, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel


def kind_of(annotation: Any) -> tuple[Any, list[Any]]:
    """Return what a field may be, None aside, and the rules that stand inside of its type."""
    if isinstance(annotation, TypeAliasType):
        return kind_of(annotation.__value__)
    if get_origin(annotation) in (Union, UnionType):
        return kind_of(next(one for one in get_args(annotation) if one is not type(None)))
    if get_origin(annotation) is Annotated:
        kind, *rules = get_args(annotation)
        return kind, [part for rule in rules for part in getattr(rule, "metadata", [rule])]
    return annotation, []


def read_text(kind: Any, text: str) -> Any:
    """Return what a text stands for where a setting has parts: those of JSON, or what stands between commas.

    What is no JSON stays a text, which its type refuses.
    """
    if json_form(kind) or (is_list(kind) and text.startswith("[")):
        with suppress(ValueError):
            return json.loads(text)
        return text
    return [one for part in text.split(",") if (one := part.strip())] if is_list(kind) else text


def is_list(kind: Any) -> bool:
    """Return whether there may be several: a tuple, a list, a set."""
    one = _class_of(kind)
    return issubclass(one, Collection) and not issubclass(one, Mapping | str | bytes)


def item_of(kind: Any) -> Any:
    """Return what each of several may be."""
    return kind_of(next(iter(get_args(kind)), str))[0]


def has_names(kind: Any) -> bool:
    """Return whether a value has parts with names, which JSON alone can tell: a dict, a model."""
    return issubclass(_class_of(kind), Mapping | BaseModel)


def json_form(kind: Any) -> str:
    """Return what a value is in JSON, where nothing else can tell it: an object, or an array of such; else nothing."""
    if has_names(kind):
        return "object"
    return "array" if is_list(kind) and has_names(item_of(kind)) else ""


def parts(annotation: Any, around: frozenset[Any] = frozenset()) -> Iterator[Any]:
    """Yield an annotation and all that stands inside of it, also in the fields of models."""
    kind = kind_of(annotation)[0]
    yield kind
    inside = list(get_args(annotation) or get_args(kind))
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or is_typeddict(kind)) and kind not in around:
        around |= {kind}
        inside += get_type_hints(kind).values()
    for one in inside:
        yield from parts(one, around)


def _class_of(kind: Any) -> type:
    one = dict if is_typeddict(kind) else get_origin(kind) or kind
    return one if isinstance(one, type) else object
