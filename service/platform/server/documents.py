"""The JSON that views return, as Quart writes it: one encoder for all of them, and no response where none is needed."""

import json
from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter
from quart.json.provider import DefaultJSONProvider

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
_TYPE = (b"content-type", b"application/json")


class Document(NamedTuple):
    """What stands for a response that nobody wants to see before it is sent."""

    body: bytes
    status: int = 200
    fields: Iterable[tuple[bytes, bytes]] = (_TYPE,)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*self.fields, (b"content-length", b"%d" % len(self.body))]


class Json(DefaultJSONProvider):
    """Quart's, whose documents need neither an encoder nor a response of their own, and are JSON: NaN is none.

    It is a ValueError, and so a 500 that is logged; a pydantic model itself makes null of it.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._encode = json.JSONEncoder(
            default=self.default,
            ensure_ascii=self.ensure_ascii,
            sort_keys=self.sort_keys,
            separators=(",", ":"),
            allow_nan=False,
        ).encode

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return super().dumps(obj, **{"allow_nan": False} | kwargs)

    @staticmethod
    def default(value: object) -> Any:
        """Return what JSON has a word for, as `/openapi.json` describes the type: Quart's own has another for dates."""
        try:
            return _ANYTHING.dump_python(value, mode="json", by_alias=True)
        except ValueError:
            raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable") from None

    def document(self, value: object) -> Document:
        return Document(f"{self._encode(value)}\n".encode())

    @property
    def is_usual(self) -> bool:
        """Whether `response` would write the same as `document`."""
        return self.compact is not False and not self._app.debug


def header_fields(model: object) -> dict[str, str]:
    """Return a model's fields as headers: `rate_left` as rate-left, and None not at all."""
    fields = _ANYTHING.dump_python(model, mode="json", by_alias=True, exclude_none=True)
    return {
        name.replace("_", "-"): value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        for name, value in fields.items()
    }


def is_model(kind: object) -> bool:
    """Whether this is a class of dataclasses or of pydantic's models, of which Quart knows nothing."""
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind))
