"""The parts of a path: their names, what their converters let through, and what a view's annotations say of them."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError
from werkzeug.routing import (
    AnyConverter,
    BaseConverter,
    FloatConverter,
    IntegerConverter,
    PathConverter,
    UnicodeConverter,
    UUIDConverter,
)

from service.platform.http.openapi.schemas import json_schema

# As werkzeug reads it: <name>, <converter:name>, <converter(arguments):name>.
_PART = re.compile(r"<(?:[A-Za-z_]\w*(?:\(.*?\))?:)?(?P<name>[A-Za-z_]\w*)>")
_LENGTHS = re.compile(r"\[\^/\]\{(?P<least>\d+)(?P<range>,(?P<most>\d*))?\}")  # how a string's converter keeps its own
_PYTHON_ONLY = re.compile(r"\(\?(?!:|=|!|<=|<!)|\\[AZz]")  # what other languages' patterns do not have

_FINITE = ConfigDict(allow_inf_nan=False)  # JSON has no other numbers

_TEXTS = (UnicodeConverter, PathConverter, AnyConverter)  # these convert nothing


def names(rule: str) -> list[str]:
    """Return the names of the parts of a rule such as `/<shop>/orders/<int:seq>`, in order."""
    return _PART.findall(rule)


def template(rule: str) -> str:
    """Return a rule as OpenAPI writes it: `/{shop}/orders/{seq}`."""
    return _PART.sub(r"{\g<name>}", rule)


def nameless(rule: str) -> str:
    """Return what makes two paths different to OpenAPI."""
    return _PART.sub("{}", rule)


def annotations(view: Callable[..., object]) -> dict[str, Any]:
    """Return the annotations of a view, or of all methods of a class of views, or of the one that is for all."""
    views = getattr(view, "view_class", None)
    methods = [view]
    if views is not None:
        own = [method.lower() for method in views.methods or ()]
        methods = [getattr(views, name) for name in own if hasattr(views, name)] or [views.dispatch_request]
    return {name: hint for one in methods for name, hint in get_type_hints(one, include_extras=True).items()}


def undefined(routes: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield a line for each of some routes, each a name and its view, with an annotation that says nothing here."""
    for name, view in routes:
        try:
            with suppress(TypeError):  # of what has no annotations, such as a partial
                annotations(view)
        except (NameError, AttributeError) as error:  # a name, or a module of a package that is there
            told = "which is not there when it serves: import it outside of `if TYPE_CHECKING`"
            yield f"{name}: is annotated with {error.name}, {told}"


def adapter(hint: Any) -> TypeAdapter[Any] | None:
    """Return what checks a part of a path; None if there is nothing to check, or only the converter knows how."""
    if hint in {str, Any, object}:
        return None
    try:
        return TypeAdapter(hint, config=_FINITE)
    except PydanticSchemaGenerationError:
        return None
    except PydanticUserError:
        return TypeAdapter(hint)  # a model, which has a configuration of its own


def part_schema(converter: BaseConverter, hint: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of a part that has to please its converter and its annotation; and those it refers to."""
    given, checked = converter_schema(converter), adapter(hint)
    if checked is None:
        return given, {}
    try:
        wanted, definitions = json_schema(checked)
    except PydanticInvalidForJsonSchema:
        return given, {}
    if given["type"] != wanted.get("type", given["type"]):
        return (wanted, definitions) if isinstance(converter, _TEXTS) else (given, {})  # one says what is written
    both = {key for key in given.keys() & wanted.keys() if given[key] != wanted[key]}
    return ({"allOf": [given, wanted]} if both else given | wanted), definitions


def converter_schema(converter: BaseConverter) -> dict[str, Any]:
    """Return the schema of what a converter lets through."""
    match converter:
        case AnyConverter():
            return {"type": "string", "enum": sorted(converter.items)}
        case IntegerConverter(fixed_digits=digits) if digits:
            return {"type": "string", "pattern": "^-?[0-9]+$", "minLength": digits, "maxLength": digits}
        case IntegerConverter() | FloatConverter():
            least = converter.min if converter.signed or converter.min is not None else 0
            bounds: Mapping[str, Any] = {"minimum": least, "maximum": converter.max}
            kind = "integer" if isinstance(converter, IntegerConverter) else "number"
            return {"type": kind} | {name: bound for name, bound in bounds.items() if bound is not None}
        case UUIDConverter():
            return {"type": "string", "format": "uuid"}
        case PathConverter():
            return {"type": "string", "minLength": 1, "description": "may have slashes"}
        case UnicodeConverter() if found := _LENGTHS.fullmatch(converter.regex):
            most = found["most"] if found["range"] else found["least"]
            return {"type": "string", "minLength": int(found["least"])} | ({"maxLength": int(most)} if most else {})
    return {"type": "string"} | _pattern(converter)


def _pattern(converter: BaseConverter) -> dict[str, str]:
    if converter.regex == BaseConverter.regex or _PYTHON_ONLY.search(converter.regex):
        return {}
    return {"pattern": f"^(?:{converter.regex})$"}
