"""What the generator of requests must know of the features: each `tests/<feature>/api_hooks.py`, imported.

And of the server: a longer request line is a 431, however right the request is.
"""

from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import schemathesis

MOST = 12_000  # bytes of a query: with all the rest of a head it is below what the server reads of one

for path in sorted(Path(__file__).parents[2].glob("*/api_hooks.py")):
    import_module(f"tests.{path.parent.name}.api_hooks")


@schemathesis.hook
def filter_query(_: schemathesis.HookContext, query: Any) -> bool:
    return len(quote(str(query), errors="replace")) < MOST
