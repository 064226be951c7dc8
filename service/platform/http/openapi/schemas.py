"""JSON Schema of whatever pydantic can read: TypedDicts, dataclasses, annotated types."""

from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

REFERENCE = "#/components/schemas/{model}"

# Above it JavaScript, whose numbers are doubles, reads another number, which may be out of bounds when it is sent back.
_EXACT = 2**53 - 1


class AnswerSchema(GenerateJsonSchema):
    """JSON Schema of what is sent: fields that have a default are sent too."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        sent = self.mode == "serialization" and field["type"] != "typed-dict-field"
        return sent or super().field_is_required(field, total)

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  pydantic's signature
        return False  # it would be the field's name once more

    def get_decimal_pattern(self, schema: Any) -> str | None:
        """Say which texts are taken for a decimal: else any is, by the description."""
        return self.build_decimal_pattern(schema) if self.mode == "validation" else None

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """Leave out a default that a client would send changed, if it filled it in: who says nothing gets it anyway.

        And null, which says no more than that the field may be missing: what openapi-typescript makes of a body has to
        have each field with a default.
        """
        made = super().default_schema(schema)
        default = made.get("default")
        untold = default is None or (isinstance(default, int) and abs(default) > _EXACT)
        return {key: value for key, value in made.items() if key != "default" or not untold}


class SparseSchema(AnswerSchema):
    """The same where None is not sent: such a field may be missing, and is never null."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        inner = field["schema"]
        inner = inner["schema"] if inner["type"] == "default" else inner
        return inner["type"] != "nullable" and super().field_is_required(field, total)

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])


def json_schema(
    model: Any, *, mode: Literal["validation", "serialization"] = "validation", generator: Any = AnswerSchema
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of anything that pydantic can read, or of its adapter, and those that it refers to."""
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    schema = adapter.json_schema(mode=mode, ref_template=REFERENCE, schema_generator=generator)
    return schema, schema.pop("$defs", {})
