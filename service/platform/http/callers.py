"""Who is asking, for handlers."""

from typing import TYPE_CHECKING, Any, cast

from quart import current_app, has_request_context, request, websocket

from service.platform.identity import GUEST, Caller

if TYPE_CHECKING:
    from service.platform.identity.gate import Gate

CALLERS = "trireme.callers"  # where an application keeps its gate


async def caller() -> Caller:
    """Return who asks for what the current task answers: a guest, also while no identity provider is set.

    For a websocket ask before `accept`, so that a refusal is a status. Raises Unauthenticated when what the request
    carries does not hold, which a route for anyone may meet here, and any other before its handler.
    """
    gate: Gate | None = current_app.extensions.get(CALLERS)
    asked = request if has_request_context() else websocket
    return GUEST if gate is None else await gate.identify(cast(dict[str, Any], asked.scope))
