"""What requests and websockets are held to before their view is called: what it declares of the parts of its path.

Of headers, which quart-schema reads, only what pydantic takes for something else.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from quart_schema.validation import QUART_SCHEMA_HEADERS_ATTRIBUTE
from werkzeug.routing import Rule

from service.platform.errors import Invalid, cut
from service.platform.http.openapi.declarations import described, explain_field, refuse_headers
from service.platform.http.openapi.numbers import wanted_within
from service.platform.http.openapi.paths import adapter, annotations, names
from service.platform.http.openapi.schemas import json_schema


class PathParts:
    """The declarations of all views, worked out when a route is added; a view without any costs one look-up."""

    def __init__(self) -> None:
        self._adapters: dict[tuple[str, str], dict[str, TypeAdapter[Any]]] = {}
        self._headers: dict[str, type] = {}  # by the endpoint

    def declare(self, rule: str, endpoint: str, view: Callable[..., object]) -> None:
        """Read what `view` says of the parts of `rule`."""
        parts = names(rule)
        try:
            hints = annotations(view) if parts else {}
        except (NameError, AttributeError):
            return  # the check of all routes, which comes next, names it and stops the start
        adapters = {name: adapter(hints[name]) for name in parts if name in hints}
        checked = {name: found for name, found in adapters.items() if found is not None}
        if (headers := getattr(view, QUART_SCHEMA_HEADERS_ATTRIBUTE, None)) is not None:
            self._headers[endpoint] = headers
        if checked or headers is not None:
            self._adapters[endpoint, rule] = checked  # another rule of the same view may have defaults, which are ours

    def hold(self, rule: Rule, values: dict[str, Any] | None) -> None:
        """Make the values what they are declared to be. Raises Invalid for the first that cannot be that."""
        adapters = self._adapters.get((rule.endpoint, rule.rule))
        if adapters is None or values is None:
            return
        if rule.endpoint in self._headers:
            refuse_headers(self._headers[rule.endpoint])
        for name, checked in adapters.items():
            if isinstance(text := values[name], str) and (wanted := wanted_within(text, *_schema(checked))):
                raise Invalid(f"{name}: must be {described(*_schema(checked)) or wanted}, not {cut(text)!r}")
            try:
                values[name] = checked.validate_python(values[name])
            except ValidationError as error:
                words = described(*_schema(checked))
                raise explain_field(error, {name: words} if words else {}, within=name) from None


@cache
def _schema(checked: TypeAdapter[Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the schema of a part and what it refers to, an empty one where it has none."""
    try:
        return json_schema(checked)
    except PydanticInvalidForJsonSchema:
        return {}, {}
