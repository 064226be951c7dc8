"""The document itself: quart-schema's reading of the routes, and what they have in common.

quart-schema's extension is not installed: it would convert each response anew, which costs more than most handlers do.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from inspect import getdoc
from typing import Any, Literal, get_origin, is_typeddict

import trio
from quart import Quart
from quart_schema import Info, OpenAPIProvider, QuartSchema
from werkzeug.routing import BaseConverter, Rule

from service.platform import errors
from service.platform.errors import PROBLEM_JSON, Invalid, Problem, ServiceError, Unavailable
from service.platform.http.limits import Limit, limit_of
from service.platform.http.openapi.components import Components, error_names
from service.platform.http.openapi.declarations import Media, header_name, is_error
from service.platform.http.openapi.documents import add_document
from service.platform.http.openapi.headers import ID, IDEMPOTENCY_KEY, REPLAYED, TOO_LARGE, headers_of
from service.platform.http.openapi.paths import annotations, nameless, names, part_schema, template
from service.platform.http.openapi.schemas import REFERENCE, SparseSchema, json_schema
from service.platform.http.openapi.security import SCHEME, security, security_scheme
from service.platform.identity import Unauthenticated, declared
from service.platform.name import TITLE, version
from service.platform.server import is_model

PATH = "/openapi.json"
_JSON = "application/json"
_SAFE = frozenset({"get", "head", "options"})

# What may meet a request whatever its route: ahead of the framework (server/guard.py), and at the deadline.
_ALWAYS = (Invalid, errors.Misdirected, ServiceError, Unavailable, errors.DeadlineExceeded)
_CHANGING = (errors.Forbidden, errors.UnsupportedMedia, errors.RateLimited)
_WITH_BODY = (errors.RequestTimeout, errors.TooLarge)


def add_openapi(app: Quart, issuer: str | None = None) -> None:
    """Add the document of all the routes that `app` has by now; with an issuer it says who may."""
    provider = _Provider(app, issuer)

    async def make() -> bytes:
        for rule in provider.generate_rules():
            try:
                provider.build_paths(rule)
            except Exception as error:  # of quart-schema or pydantic, whose words do not say whose declaration it is
                error.add_note(f"of what {rule.endpoint} at {rule.rule} declares")
                raise
            await trio.lowlevel.checkpoint()  # a route takes a millisecond or two, and others have their turn
        return json.dumps(provider.schema()).encode()

    add_document(app, PATH, make, {"Content-Type": _JSON})


class _Provider(OpenAPIProvider):
    """quart-schema's reading of the routes, and what they have in common."""

    def __init__(self, app: Quart, issuer: str | None) -> None:
        info = Info(title=TITLE, version=version())
        super().__init__(app, QuartSchema(info=info))
        self._components = Components()
        self._problem = self._components.place({}, {"Problem": json_schema(Problem)[0]})[1]  # keeps its name
        self._errors = error_names(_kinds(ServiceError))
        self._views = app.view_functions
        self._issuer = issuer
        self._built: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        # Whoever was first: the rule of a path, the rule that answers there to a method, the path of an identifier.
        self._paths: dict[str, str] = {}
        self._answering: dict[tuple[str, str], str] = {}
        self._identifiers: dict[str, tuple[str, str]] = {}
        self._rules = [rule for rule in super().generate_rules() if self.generate_methods(rule)]

    def schema(self) -> dict[str, Any]:
        document = super().schema()
        document["components"]["responses"] = {name: _answer(kind) for kind, name in self._errors.items()}
        if self._issuer is not None:
            document["components"]["securitySchemes"] = {SCHEME: security_scheme(self._issuer)}
        document["components"]["schemas"] |= self._problem
        return document

    def generate_rules(self) -> Iterable[Rule]:
        """Return those that were there when this was made: the document's own comes later."""
        return self._rules

    def generate_methods(self, rule: Rule) -> list[str]:
        """Of two routes with the same path and method the first is the one that is described."""
        path, key = nameless(rule.rule), repr(rule)
        methods = sorted(super().generate_methods(rule))
        return [method for method in methods if self._answering.setdefault((path, method), key) == key]

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        key = repr(rule)  # its path, methods and endpoint; it cannot be hashed
        if key not in self._built:
            self._built[key] = self._build_paths(rule)
        return self._built[key]

    def _build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        paths, components = super().build_paths(rule)
        [operations] = paths.values()
        view = self._views[rule.endpoint]
        hints = annotations(view)
        path, renamed = self._path(rule.rule)
        for method, operation in operations.items():
            operation |= {"operationId": self._identifier(rule, method), "tags": [rule.endpoint.split(".")[0]]}
            operation["parameters"], definitions = self._describe_parts(operation["parameters"], hints, renamed)
            components |= definitions | self._add_answer(operation, hints)
            if getattr(view, "idempotent", False):
                operation["parameters"].append(IDEMPOTENCY_KEY)
                for own in [response for response in operation["responses"].values() if "$ref" not in response]:
                    own["headers"] = own.get("headers", ID) | REPLAYED
                kinds: list[type[ServiceError]] = [errors.Conflict, errors.Unprocessable]
                if self._issuer is not None:
                    kinds.append(Unauthenticated)  # a key is its caller's
                for kind in kinds:
                    operation["responses"].setdefault(kind.status, self.build_response_object(kind, None)[0])
            if method not in _SAFE and (types := getattr(view, "takes", ())):
                content = operation.setdefault("requestBody", {"content": {}})["content"]
                held = content.get(_JSON, {})  # to the declared body, by whichever name of JSON's it comes
                content |= {one: held if one.endswith("+json") else {} for one in types if one not in content}
            may = declared(view)
            needed = may if may is not None and may.signed_in and self._issuer is not None else None
            if needed is not None:
                operation["security"] = security(needed)
            limit = limit_of(view)
            if limit is not None and (told := limit.document()):
                operation["x-limits"] = told
            _complete(
                operation, method, guarded=not getattr(view, "unguarded", False), closed=needed is not None, limit=limit
            )
            if media := getattr(view, "refused_as", ""):
                self._tell_twice(operation["responses"], media)
        return {path: operations}, components

    def _tell_twice(self, responses: dict[str, Any], media: str) -> None:
        """Let the errors among some answers have another media type too, but for what is told ahead of every route."""
        kinds = {f"#/components/responses/{name}": kind for kind, name in self._errors.items()}
        for status, response in responses.items():
            kind = kinds.get(response.get("$ref", ""))
            if kind is not None and kind is not errors.Misdirected:
                responses[status] = _answer(kind)
                responses[status]["content"][media] = {}

    def _path(self, rule: str) -> tuple[str, dict[str, str]]:
        """Return a rule's path, and what its parts are called there: to OpenAPI /a/{b} and /a/{c} are the same path."""
        known = self._paths.setdefault(nameless(rule), rule)
        return template(known), dict(zip(names(rule), names(known), strict=True))

    def _identifier(self, rule: Rule, method: str) -> str:
        """Return the endpoint's name, and its method and path where it has several."""
        name: str = rule.endpoint.replace(".", "_")
        if self._identifiers.setdefault(name, (rule.rule, method)) == (rule.rule, method):
            return name
        return f"{name}_{method}_{'_'.join(re.findall(r'\w+', rule.rule))}"

    def build_path_parameter(self, name: str, converter: BaseConverter) -> dict[str, Any]:
        return {"name": name, "in": "path", "converter": converter}  # made a schema where the annotations are known

    def _add_answer(self, operation: dict[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
        """Add what a view's annotations say of its answer, if nothing else does: errors say nothing of that."""
        told = any(str(status).startswith("2") for status in operation["responses"])
        if told or not _is_json(hints.get("return")):
            return {}
        operation["responses"][200], definitions = self.build_response_object(hints["return"], None)
        return definitions

    def build_querystring_parameters(self, model: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        fields, definitions = self._fields(model)
        return [{"name": name, "in": "query"} | field for name, field in fields.items()], definitions

    def build_headers_parameters(self, model: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        fields, definitions = self._fields(model)
        return [{"name": header_name(name), "in": "header"} | field for name, field in fields.items()], definitions

    def _fields(
        self, model: Any, mode: Literal["validation", "serialization"] = "validation"
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Return what is said of each field of a model that comes in parts, and what that refers to."""
        schema, definitions = self._components.place(*json_schema(model, mode=mode, generator=SparseSchema))
        required = schema.get("required", ())
        fields = {name: {"required": name in required, "schema": field} for name, field in schema["properties"].items()}
        return fields, definitions

    def build_request_body(self, model: Any, _: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        schema, definitions = self._components.refer(*json_schema(model))
        return {"required": True, "content": {_JSON: {"schema": schema}}}, definitions

    def build_response_object(self, model: Any, headers: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if is_error(model):
            return {"$ref": f"#/components/responses/{self._errors[model]}"}, {}
        if model is None:
            return {}, {}
        if isinstance(model, Media):
            return ({"content": {model.type: {}}} if model.type else {}), {}
        schema, definitions = self._components.refer(*json_schema(model, mode="serialization"))
        response: dict[str, Any] = {"content": {_JSON: {"schema": schema}}}
        if headers is not None:
            fields, more = self._fields(headers, "serialization")
            response["headers"] = ID | {header_name(name): field for name, field in fields.items()}
            definitions |= more
        return response, definitions

    def _describe_parts(
        self, parameters: Iterable[dict[str, Any]], hints: Mapping[str, Any], renamed: Mapping[str, str]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Add to the parts of a path what the view's annotations say of them; return what that refers to as well."""
        described: list[dict[str, Any]] = []
        found: dict[str, Any] = {}
        for parameter in parameters:
            if parameter["in"] == "path":
                name, converter = parameter["name"], parameter["converter"]
                schema, definitions = self._components.place(*part_schema(converter, hints.get(name, str)))
                found |= definitions
                described.append({"name": renamed[name], "in": "path", "required": True, "schema": schema})
            else:
                described.append(parameter)
        return described, found


def _complete(operation: dict[str, Any], method: str, *, guarded: bool, closed: bool, limit: Limit | None) -> None:
    """Add the answers that come from outside of the route, and what belongs to every answer."""
    declared = operation["responses"] or {"default": {"description": "not declared"}}
    responses = {str(status): dict(response) for status, response in declared.items()}
    for kind in _surrounding(operation, method, closed=closed, limit=limit) if guarded else ():
        known = responses.setdefault(str(kind.status), {"$ref": f"#/components/responses/{kind.__name__}"})
        if "content" in known:
            known["content"] |= _answer(kind)["content"]
    responses.setdefault("431", TOO_LARGE)
    headers = ID if guarded else {}
    operation["responses"] = {status: _told(status, responses[status], headers) for status in sorted(responses)}


def _told(status: str, response: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    phrase = errors.phrase_of(int(status)) if status.isdecimal() else ""
    return response if "$ref" in response else {"description": phrase, "headers": headers} | response


def _surrounding(
    operation: Mapping[str, Any], method: str, *, closed: bool, limit: Limit | None
) -> Iterator[type[ServiceError]]:
    yield from _ALWAYS
    if closed:
        yield from (Unauthenticated, errors.Forbidden)
    if method not in _SAFE:
        yield from _CHANGING
    if limit is not None and limit.may_be_too_many:
        yield errors.RateLimited
    if limit is not None and limit.body:
        yield errors.TooLarge
    if "requestBody" in operation:
        yield from _WITH_BODY
    if any(parameter["in"] == "path" for parameter in operation["parameters"]):
        yield errors.NotFound


def _answer(kind: type[ServiceError]) -> dict[str, Any]:
    """Return how an error is told, as errors.py declares it."""
    content = {PROBLEM_JSON: {"schema": {"$ref": REFERENCE.format(model="Problem")}}}
    return {"description": (getdoc(kind) or "").partition("\n")[0], "headers": headers_of(kind), "content": content}


def _kinds(root: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


def _is_json(hint: object) -> bool:
    """Whether Quart sends what a view with this annotation returns as JSON."""
    return is_typeddict(hint) or get_origin(hint) in {dict, list} or is_model(get_origin(hint) or hint)
