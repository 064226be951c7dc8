"""What an identity provider sends a browser back with."""

import re
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")  # of those that may come, what can be shown anywhere


@dataclass(frozen=True, kw_only=True)
class Answer:
    state: Annotated[str, Field(max_length=200)] = ""
    code: Annotated[str, Field(max_length=4_000)] = ""
    iss: Annotated[str | None, Field(max_length=2_000)] = None
    error: Annotated[str | None, Field(max_length=200)] = None


def error_code(given: object) -> str:
    """Return what a provider gives as an error code if it is one that can be shown, else nothing."""
    return given if isinstance(given, str) and _ERROR_CODE.fullmatch(given) else ""
