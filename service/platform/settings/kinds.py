"""What kind of value a setting is, by its annotation: one, several, or what has parts with names. Knows no setting."""

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, Json, Secret, SecretBytes, SecretStr
from pydantic_settings import NoDecode

SECRETS: tuple[type, ...] = (SecretStr, SecretBytes, Secret)


def kinds_of(annotation: Any) -> list[tuple[Any, list[Any]]]:
    """Return all that a field may be, None aside, each with the rules that stand inside of its type."""
    if (meant := getattr(annotation, "__value__", None)) is not None:  # `type Name = ...`, which is of two classes
        return kinds_of(meant)
    if get_origin(annotation) in (Union, UnionType):
        return [kind for one in get_args(annotation) if one is not type(None) for kind in kinds_of(one)]
    if get_origin(annotation) is Annotated:
        inner, *rules = get_args(annotation)
        rules = [part for rule in rules for part in getattr(rule, "metadata", [rule])]
        return [(kind, [*own, *rules]) for kind, own in kinds_of(inner)]
    return [(annotation, [])]


def kind_of(annotation: Any) -> tuple[Any, list[Any]]:
    """Return the first that a field may be, and its rules."""
    return kinds_of(annotation)[0]


def read_text(annotation: Any, rules: Iterable[Any], text: str) -> Any:
    """Return what a text stands for where a setting has parts: those of JSON, or what stands between commas.

    What is no JSON stays a text, which its type refuses, or takes where it may be of another kind as well.
    """
    kinds = kinds_of(annotation)
    if is_own([*rules, *(rule for _, inside in kinds for rule in inside)]):
        return text
    if is_list(annotation) and not json_form(annotation) and not (text.startswith("[") or text == "null"):
        return split(text)
    if any(is_list(kind) or has_names(kind) for kind, _ in kinds):
        with suppress(ValueError):
            return json.loads(text)
    return text


def split(text: str) -> list[str]:
    """Return what stands between commas, without the blanks around it; nothing is no part."""
    return [one for part in text.split(",") if (one := part.strip())]


def is_own(rules: Iterable[Any]) -> bool:
    """Return whether a type has a way of its own to read a text."""
    return any(rule is NoDecode or type(rule) is Json for rule in rules)


def is_list(annotation: Any) -> bool:
    """Return whether there may be several, and nothing else: a tuple, a list, a set."""
    [(kind, _), *others] = kinds_of(annotation)
    one = _class_of(kind)
    return not others and issubclass(one, Collection) and not issubclass(one, str | bytes | Enum) and not _names(one)


def has_names(annotation: Any) -> bool:
    """Return whether a value has parts with names, which JSON alone can tell: a dict, a model, a dataclass."""
    return all(_names(_class_of(kind)) for kind, _ in kinds_of(annotation))


def json_form(annotation: Any) -> str:
    """Return what a value is in JSON, where nothing else can tell it: an object, or an array of such; else nothing."""
    if has_names(annotation):
        return "object"
    item = next(iter(get_args(kind_of(annotation)[0])), str)
    return "array" if is_list(annotation) and has_names(item) else ""


def holds_secret(annotation: Any) -> bool:
    """Return whether a value is a secret, or a part of it may be one."""
    ahead, seen = [annotation], list[Any]()
    while ahead:
        for kind, _ in kinds_of(ahead.pop()):
            if issubclass(_class_of(kind), SECRETS):
                return True
            if kind not in seen:  # a type may hold itself
                seen.append(kind)
                ahead += [*get_args(kind), *fields(kind).values()]
    return False


def fields(kind: Any) -> Mapping[str, Any]:
    """Return what the parts of a model, a dataclass, a TypedDict or a NamedTuple may be, by their names."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return get_type_hints(kind) if isinstance(kind, type) and (is_typeddict(kind) or _names(kind)) else {}


def _names(one: type) -> bool:
    named_tuple = issubclass(one, tuple) and hasattr(one, "_fields")
    return named_tuple or issubclass(one, Mapping | BaseModel) or is_dataclass(one)


def _class_of(kind: Any) -> type:
    one = dict if is_typeddict(kind) else get_origin(kind) or kind
    return one if isinstance(one, type) else object
