"""Who is asking, and what they may. Start reading at may.py; how a token is checked is in tokens.py.

What features use is `service.platform.http`'s: the declarations, and `caller()`.
"""

from service.platform.identity.caller import GUEST, Caller, InsufficientScope, Unauthenticated, caller_of
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
from service.platform.identity.opening import NOBODY, Identity, open_identity

__all__ = [
    "ANYONE",
    "GUEST",
    "NOBODY",
    "SIGNED_IN",
    "Caller",
    "Identity",
    "InsufficientScope",
    "May",
    "Rule",
    "Unauthenticated",
    "UndeclaredError",
    "anyone",
    "caller_of",
    "check_declared",
    "declared",
    "only",
    "open_identity",
    "scope",
    "signed_in",
]
