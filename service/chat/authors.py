"""Who writes: whoever has signed in, or else a name that is claimed, and shown as a claim."""

import secrets
from dataclasses import dataclass

from quart.wrappers.base import BaseRequestWebsocket

from service.chat.parsing import parse_name
from service.platform.errors import Invalid
from service.platform.http import caller
from service.platform.identity import GUEST, Caller

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is taken for another


@dataclass(frozen=True, slots=True)
class Author:
    """A name, and whose it is: the caller's subject says so where an identity provider does, and nobody otherwise."""

    name: str
    caller: Caller = GUEST

    @property
    def subject(self) -> str | None:
        return self.caller.subject or None


async def identify(asked: BaseRequestWebsocket, claim: str | None = None) -> Author:
    """Return who is asking: who has signed in, whatever is claimed; a claimed name; else a guest's.

    Raises Invalid for a claim that cannot be a name.
    """
    who = await caller()
    if who.signed_in:
        return Author(name_of(who), who)
    names = asked.args.getlist("name") if claim is None else [claim]
    if len(names) > 1:
        raise Invalid(f"name: must be given once, not {len(names)} times")
    return Author(parse_name(names[0]) if names else f"guest-{_random_letters(4)}")


def name_of(who: Caller) -> str:
    """Return what the chat calls somebody: the provider's name for him, else his subject, if the chat can show it."""
    for name in (who.name, who.subject):
        try:
            return parse_name(name)
        except Invalid:
            continue
    return f"member-{who.label[:8]}"


def _random_letters(count: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(count))
