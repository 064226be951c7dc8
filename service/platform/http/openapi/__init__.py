"""`/openapi.json`: what the routes say of themselves, made into one document when it is first asked for.

Features declare by their annotations, with quart-schema's decorators and with `replies`; what every route can answer is
added here. Whoever has a document of its own to send uses `add_document`.
"""

from service.platform.http.openapi.declarations import (
    Media,
    explain,
    read_lists,
    refused_as,
    replies,
    unguarded,
    with_form,
)
from service.platform.http.openapi.documents import add_document, folders
from service.platform.http.openapi.doubling import doubling
from service.platform.http.openapi.parts import PathParts
from service.platform.http.openapi.paths import undefined
from service.platform.http.openapi.provider import add_openapi
from service.platform.http.openapi.schemas import SparseSchema, json_schema
from service.platform.http.openapi.security import SCHEME, security_scheme

__all__ = [
    "SCHEME",
    "Media",
    "PathParts",
    "SparseSchema",
    "add_document",
    "add_openapi",
    "doubling",
    "explain",
    "folders",
    "json_schema",
    "read_lists",
    "refused_as",
    "replies",
    "security_scheme",
    "undefined",
    "unguarded",
    "with_form",
]
