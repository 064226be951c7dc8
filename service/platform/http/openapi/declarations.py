"""What a route declares beside quart-schema's own decorators, and how a request that breaks a declaration is told."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import isclass
from typing import Any, TypeGuard

from pydantic import ValidationError
from quart import current_app, request
from quart_schema import DataSource, RequestSchemaValidationError, document_response
from quart_schema.validation import (
    QUART_SCHEMA_HEADERS_ATTRIBUTE,
    QUART_SCHEMA_QUERYSTRING_ATTRIBUTE,
    QUART_SCHEMA_REQUEST_ATTRIBUTE,
    RequestHeadersValidationError,
)
from werkzeug.datastructures import MultiDict
from werkzeug.routing import Rule

from service.platform.errors import Invalid, ServiceError, cut, shown
from service.platform.http.openapi.numbers import resolved, wanted_within
from service.platform.http.openapi.schemas import SparseSchema, json_schema

_NO_OBJECT = frozenset({"dataclass_type", "dict_type", "model_attributes_type", "model_type"})  # pydantic's words


@dataclass(frozen=True, slots=True)
class Media:
    """A response that is told by its media type alone; without one it has no body."""

    type: str = ""


def replies[F: Callable[..., object]](model: Any, *statuses: int) -> Callable[[F], F]:
    """Declare what a route answers: a dataclass, TypedDict, Media or error. No status: the error's own, else 200.

    None is an answer without a body, as of 204.
    A route whose return annotation is a dict, such as a TypedDict, a list or a model needs none for its 200.
    """

    def declare(view: F) -> F:
        for status in statuses or (model.status if is_error(model) else 200,):
            view = document_response(model, status)(view)
        return view

    return declare


def refused_as[F: Callable[..., object]](media: str) -> Callable[[F], F]:
    """Declare that what a route refuses is told by this media type too, to whoever prefers it."""

    def declare(view: F) -> F:
        view.refused_as = media  # type: ignore[attr-defined]  # a function takes attributes
        return view

    return declare


def unguarded[F: Callable[..., object]](view: F) -> F:
    """Mark a route that is answered ahead of everything: no refusal can meet it, and no request's id is made."""
    view.unguarded = True  # type: ignore[attr-defined]  # a function takes attributes
    return view


def with_form(routes: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield a line for each of some routes, each a name and its view, whose declared body no request could bring."""
    for name, view in routes:
        _, source = getattr(view, QUART_SCHEMA_REQUEST_ATTRIBUTE, (None, DataSource.JSON))
        if source is not DataSource.JSON:
            yield f"{name}: takes a form, and a body here is application/json: leave out source={source}"


def explain(error: RequestSchemaValidationError) -> Invalid:
    """Return what a declaration refused in the words of its description: `name: must be <description>, not 'x'`."""
    refused = error.validation_error
    if not isinstance(refused, ValidationError):
        return Invalid("body: must be a JSON object")  # what else a model may raise says nothing to a client
    in_header = isinstance(error, RequestHeadersValidationError)
    return explain_field(refused, described_by(request.url_rule), in_header=in_header)


def header_name(field: str) -> str:
    """Return the header that a field of a model stands for."""
    return field.replace("_", "-")


def explain_field(
    refused: ValidationError, descriptions: Mapping[str, str], *, within: str = "", in_header: bool = False
) -> Invalid:
    """Return what was wrong first, in the words of the field's description; `within` is what has no name of its own."""
    first = refused.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in ((within, *first["loc"]) if within else first["loc"])) or "body"
    expected = "a JSON object" if first["type"] in _NO_OBJECT else descriptions.get(field)
    field = cut(header_name(field) if in_header else field)  # of a mapping, the caller names what is in it
    if first["type"] == "missing":
        return Invalid(f"{field}: is missing" + (f"; must be {expected}" if expected else ""))
    wanted = f"must be {expected}" if expected else cut(first["msg"])
    return Invalid(f"{field}: {wanted}, not {shown(first['input'])!r}")


def is_error(model: object) -> TypeGuard[type[ServiceError]]:
    return isclass(model) and issubclass(model, ServiceError)


def described_by(rule: Rule | None) -> dict[str, str]:
    """Return the description of each field that a route declares to take."""
    view = current_app.view_functions[rule.endpoint] if rule is not None else None
    models = [
        getattr(view, kind, None) for kind in (QUART_SCHEMA_HEADERS_ATTRIBUTE, QUART_SCHEMA_QUERYSTRING_ATTRIBUTE)
    ]
    models += getattr(view, QUART_SCHEMA_REQUEST_ATTRIBUTE, ())[:1]
    return {name: words for model in models if model is not None for name, words in _descriptions(model).items()}


@cache  # a schema takes as long to make as a hundred requests to refuse
def _descriptions(model: type) -> dict[str, str]:
    schema, definitions = json_schema(model)
    words = {name: described(field, definitions) for name, field in schema.get("properties", {}).items()}
    return {name: told for name, told in words.items() if told}


def described(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return the description in a schema, in the one that it is a name for, or in what it is if it is not null."""
    whole = resolved(schema, definitions)
    others = [one for one in whole.get("anyOf", ()) if one.get("type") != "null"]
    if "description" not in whole and len(others) == 1:
        return described(others[0], definitions)
    return str(whole.get("description", ""))


def read_lists(view: object) -> None:
    """Let what a view declares as a list in its query be one also when it has a single member, as in `?tag=a`.

    quart-schema takes that for a text, and `tag[]` for a list of any length: so it is given that as well.
    Raises Invalid for what pydantic takes in the place of what is declared, as numbers.py says.
    """
    model = getattr(view, QUART_SCHEMA_QUERYSTRING_ATTRIBUTE, None)
    if model is None:
        return
    lists, members, definitions = _fields(model)
    for name, schema in members.items():
        for text in request.args.getlist(name) + request.args.getlist(f"{name}[]"):
            if wanted := wanted_within(text, schema, definitions):
                raise Invalid(f"{name}: must be {_descriptions(model).get(name) or wanted}, not {cut(text)!r}")
    if not (given := [name for name in lists if name in request.args]):
        return
    args = MultiDict(request.args)
    for name in given:
        texts = args.getlist(name) + args.poplist(f"{name}[]")
        args.setlist(f"{name}[]", texts)  # behind the other name, as the last one counts
    request.args = request.parameter_storage_class(args)


def refuse_headers(model: type) -> None:
    """Raise Invalid for what pydantic takes in a header in the place of what is declared, as numbers.py says."""
    _, members, definitions = _fields(model)
    for header, text in request.headers:
        name = header.lower().replace("-", "_")  # as quart-schema reads it
        if name in members and (wanted := wanted_within(text, members[name], definitions)):
            told = _descriptions(model).get(name) or wanted
            raise Invalid(f"{header_name(name)}: must be {told}, not {cut(text)!r}")


@cache
def _fields(model: type) -> tuple[tuple[str, ...], dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the fields of a model that are lists, or any other arrays; the schema of each, or of its members; and
    what those refer to.
    """
    schema, definitions = json_schema(model, generator=SparseSchema)
    fields = {name: resolved(field, definitions) for name, field in schema.get("properties", {}).items()}
    lists = tuple(name for name, field in fields.items() if field.get("type") == "array")
    members = {name: resolved(field.get("items", field), definitions) for name, field in fields.items()}
    return lists, members, definitions
