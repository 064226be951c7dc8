"""The versions that this package's mends were written against, and the refusal to start with others.

A mend reaches into what it mends; on another version it may mend nothing, in silence. Whoever upgrades runs
tests/platform/server first: the tests that show a trap on the stack as it comes say which mends may go.
"""

from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType

WRITTEN_AGAINST = MappingProxyType(
    {"hypercorn": "0.18.0", "quart": "0.23.1", "quart-trio": "0.13.0", "wsproto": "1.3.2", "h11": "0.16.0"}
)


class WrongVersionsError(Exception):
    """The installed packages are not those that the mends were written against."""


def check_versions(needed: Mapping[str, str] = WRITTEN_AGAINST) -> None:
    """Raise WrongVersionsError, naming each package that differs, what is installed and what is needed."""
    wrong = [
        f"{name} is {version(name)}, service/platform/server was written against {wanted}"
        for name, wanted in needed.items()
        if version(name) != wanted
    ]
    if wrong:
        raise WrongVersionsError("; ".join(wrong) + " (see service/platform/server/README.md)")
