"""What the generator of requests must know of the features: each `tests/<feature>/api_hooks.py`, imported.

And of the server: a longer request line is a 431, however right the request is.
"""

from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import schemathesis
from schemathesis.transport.requests import REQUESTS_TRANSPORT

MOST = 12_000  # bytes of a query: with all the rest of a head it is below what the server reads of one

for path in sorted(Path(__file__).parents[2].glob("*/api_hooks.py")):
    import_module(f"tests.{path.parent.name}.api_hooks")


@schemathesis.hook
def filter_query(_: schemathesis.HookContext, query: Any) -> bool:
    return len(quote(str(query), errors="replace")) < MOST


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, document: dict[str, Any]) -> None:
    """Let what routes take beside JSON be sent as the bytes that it is."""
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    taken = {media for operation in operations for media in operation.get("requestBody", {}).get("content", {})}
    for media in taken:
        if REQUESTS_TRANSPORT.get_first_matching_media_type(media) is None:
            schemathesis.serializer.alias(media, "application/octet-stream")
