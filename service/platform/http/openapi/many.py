"""A body of many values, refused at the first that is wrong.

pydantic tells of each: of a list of models, 1 MiB is refused half a million times, once more for each field that is
missing, which is hundreds of megabytes and some seconds in which nobody has his turn. One of them is answered.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import SchemaValidator, ValidationError
from quart import current_app
from quart_schema.validation import QUART_SCHEMA_REQUEST_ATTRIBUTE
from werkzeug.routing import Rule

from service.platform.http.openapi.declarations import described_by, explain_field
from service.platform.http.openapi.doubling import NOT_SCHEMAS
from service.platform.seams import Seam

# There is no public way to have the models within another one checked anew.
SEAMS = (Seam("pydantic_core:SchemaValidator", "schema, config, _use_prebuilt"),)
MANY = 1_000  # commas; whatever is wrong with fewer values takes little
_FAIL_FAST = frozenset({"dict", "list", "tuple", "set", "frozenset"})


def refuse_first(body: bytes, document: object, rule: Rule | None) -> None:
    """Raise Invalid for the first value of a list or mapping that is not what is declared, where a body has many."""
    if rule is None or body.count(b",") < MANY:
        return
    for model in getattr(current_app.view_functions[rule.endpoint], QUART_SCHEMA_REQUEST_ATTRIBUTE, ())[:1]:
        try:
            failing_fast(model).validate_python(document)
        except ValidationError as refused:
            raise explain_field(refused, described_by(rule)) from None


@cache
def failing_fast(model: type) -> SchemaValidator:
    # Else each model within would be checked by its own validator, which goes on.
    return SchemaValidator(_with_fail_fast(TypeAdapter(model).core_schema), _use_prebuilt=False)


def _with_fail_fast(schema: Any) -> Any:
    """Return a schema of pydantic's in which each list and mapping ends at the first value that is wrong."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_with_fail_fast, schema))
    if not isinstance(schema, Mapping):  # of a model whose building is deferred it is no dict until it is read
        return schema
    kind = schema.get("type")
    others = NOT_SCHEMAS if isinstance(kind, str) else ()  # else these are fields, which may be called anything
    made = {name: part if name in others else _with_fail_fast(part) for name, part in schema.items()}
    return made | {"fail_fast": True} if isinstance(kind, str) and kind in _FAIL_FAST else made
