"""Numbers that JSON has no word for, `nan` and `inf`, which pydantic takes as texts where a number is declared."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from quart import current_app
from quart_schema.validation import QUART_SCHEMA_REQUEST_ATTRIBUTE
from werkzeug.routing import Rule

from service.platform.errors import Invalid, cut
from service.platform.http.openapi.schemas import SparseSchema, json_schema

# What every body has to have, that holds one: most have none of it, and are not looked at.
_MAYBE = re.compile(rb'"\s*[-+]?(?:nan|inf)|e\+?\d[\d_]+|(?<![\d_])[\d_]{300}|\\u', re.IGNORECASE)


def refuse_infinite(body: bytes, document: object, rule: Rule | None) -> None:
    """Raise Invalid for such a text in a body where its route declares a number."""
    view = None if rule is None else current_app.view_functions[rule.endpoint]
    for model in getattr(view, QUART_SCHEMA_REQUEST_ATTRIBUTE, ())[:1]:
        schema, definitions = _schema(model)
        if schema and _MAYBE.search(body):
            for path, text in _infinite(document, schema, definitions, ()):
                raise Invalid(f"{cut('.'.join(path)) or 'body'}: must be a finite number, not {cut(text)!r}")


def is_infinite(text: str) -> bool:
    """Whether a text is a number to Python, and none to JSON."""
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False


def resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with what it refers to in its place."""
    return {**definitions.get(schema.get("$ref", "").rpartition("/")[2], {}), **schema}


@cache
def _schema(model: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of a model and what it refers to; an empty one where it declares no number."""
    schema, definitions = json_schema(model, generator=SparseSchema)
    return (schema, definitions) if "'type': 'number'" in f"{schema}{definitions}" else ({}, {})


def _infinite(
    value: object, schema: Mapping[str, Any], definitions: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the place and the text of each. Numbers, and what nothing is declared of, are passed over."""
    if not schema or not isinstance(value, str | list | dict):
        return
    schema = resolved(schema, definitions)
    kinds = [resolved(one, definitions) for word in ("anyOf", "oneOf") for one in schema.get(word, ())]
    if not any(kind.get("type") == "string" for kind in kinds):  # else a text is what it is
        for kind in kinds:
            yield from _infinite(value, kind, definitions, path)
    if isinstance(value, str):
        if schema.get("type") == "number" and is_infinite(value):
            yield path, value
    elif isinstance(value, list):
        first, rest = schema.get("prefixItems", ()), resolved(schema.get("items", {}), definitions)
        for number, inner in enumerate(value):
            if isinstance(inner, str | list | dict):
                within = first[number] if number < len(first) else rest
                yield from _infinite(inner, within, definitions, (*path, str(number)))
    else:
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, inner in value.items():
            if isinstance(within := known.get(name, others), dict):
                yield from _infinite(inner, within, definitions, (*path, name))
