"""Who is asking, and what they may. Start reading at may.py; how a token is checked is in tokens.py.

What features use is the declarations and `Caller`; `caller()`, which waits, is `service.platform.http`'s.
"""

from service.platform.identity import cookies
from service.platform.identity.answer import Answer
from service.platform.identity.caller import (
    GUEST,
    STAY,
    TICKETS,
    Caller,
    InsufficientScope,
    Unauthenticated,
    caller_of,
    session_of,
)
from service.platform.identity.may import (
    ANYONE,
    SIGNED_IN,
    May,
    Rule,
    anyone,
    declared,
    obey,
    only,
    scope,
    signed_in,
    undeclared,
)
from service.platform.identity.opening import NOBODY, Identity, import_identity, open_identity
from service.platform.identity.stay import SIGNED_OUT, Stay
from service.platform.identity.store import TICKET_SECONDS
from service.platform.identity.tickets import make_ticket, split_tickets

__all__ = [
    "ANYONE",
    "GUEST",
    "NOBODY",
    "SIGNED_IN",
    "SIGNED_OUT",
    "STAY",
    "TICKETS",
    "TICKET_SECONDS",
    "Answer",
    "Caller",
    "Identity",
    "InsufficientScope",
    "May",
    "Rule",
    "Stay",
    "Unauthenticated",
    "anyone",
    "caller_of",
    "cookies",
    "declared",
    "import_identity",
    "make_ticket",
    "obey",
    "only",
    "open_identity",
    "scope",
    "session_of",
    "signed_in",
    "split_tickets",
    "undeclared",
]
