"""Who may do what in a room: the one place to say it.

With an identity provider everybody here has signed in; without one everybody is a guest.
"""

from collections.abc import Callable
from typing import Literal

from service.platform.identity import Caller

type Action = Literal["read", "write"]
type Rule = Callable[[Caller, str, Action], None]


def check(caller: Caller, room: str, action: Action) -> None:
    """Raise Forbidden, with words for the client, for what a caller may not do in a room. Here every room is public.

    Such a rule would keep rooms whose name begins with `staff-` to those whom the provider says to be staff:

        if room.startswith("staff-") and "staff" not in caller.claims.get("groups", ()):
            raise Forbidden(f"{room} is for members of the group staff")
    """
