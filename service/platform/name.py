"""What outsiders call this service: `make rename` writes it here, and code takes it from here."""

import functools
import importlib.metadata

NAME = "trireme"
"""The distribution's name, as in pyproject.toml."""
TITLE = NAME.replace("-", " ").capitalize()
"""The name as people read it."""


@functools.cache
def version() -> str:
    """Return the version that is installed; `unknown` where the code runs without an installation under its name."""
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
