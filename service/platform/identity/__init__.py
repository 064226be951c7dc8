"""Who is asking, and what they may. Start reading at may.py; how a token is checked is in tokens.py.

What features use is `service.platform.http`'s: the declarations, and `caller()`.
"""

from service.platform.identity.caller import GUEST, Caller, InsufficientScope, Unauthenticated
from service.platform.identity.may import (
    ANYONE,
    SIGNED_IN,
    May,
    Rule,
    UndeclaredError,
    anyone,
    check_declared,
    declared,
    only,
    scope,
    signed_in,
)

__all__ = [
    "ANYONE",
    "GUEST",
    "SIGNED_IN",
    "Caller",
    "InsufficientScope",
    "May",
    "Rule",
    "Unauthenticated",
    "UndeclaredError",
    "anyone",
    "check_declared",
    "declared",
    "only",
    "scope",
    "signed_in",
]
