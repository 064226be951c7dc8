"""Who is asking, for handlers."""

from typing import TYPE_CHECKING, Any, cast

from quart import current_app, has_request_context, request, websocket

from service.platform.identity import GUEST, STAY, Caller, Stay

if TYPE_CHECKING:
    from service.platform.identity.gate import Gate

CALLERS = "service.callers"  # where an application keeps its gate


async def caller() -> Caller:
    """Return who asks for what the current task answers: a guest, also while no identity provider is set.

    For a websocket ask before `accept`, so that a refusal is a status. Raises Unauthenticated when what the request
    carries does not hold, which a route for anyone may meet here, and any other before its handler. Cookies say nothing
    beside a form's body, nor where a page of another origin sends them.
    """
    gate: Gate | None = current_app.extensions.get(CALLERS)
    asked = request if has_request_context() else websocket
    return GUEST if gate is None else await gate.identify(cast(dict[str, Any], asked.scope))


def may_be_signed_out() -> bool:
    """Whether the current task's websocket may have to end, as `wait_signed_out` tells: not without a provider."""
    return current_app.extensions.get(CALLERS) is not None


async def wait_signed_out() -> str:
    """Return why the current task's websocket has to end, once it has to: whoever asked is no longer signed in.

    For handlers that have last words: there are 2 seconds for them. Any other is cancelled, and closed with 4401.
    """
    stay: Stay = cast(dict[str, Any], websocket.scope)[STAY]
    return await stay.wait_over()
