"""Who writes: the one seam for authentication. This version believes what is claimed, and shows it as a claim."""

import secrets
from dataclasses import dataclass

from quart.wrappers.base import BaseRequestWebsocket

from service.chat.parsing import parse_name

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is taken for another


@dataclass(frozen=True, slots=True)
class Author:
    name: str


def identify(asked: BaseRequestWebsocket, claim: str | None = None) -> Author:
    """Return who is asking: a claimed name, else a guest's. Raises Invalid for a name that cannot be one.

    To authenticate, take the name from what the request proves (a session, a token) and ignore the claim.
    """
    name = asked.args.get("name") if claim is None else claim
    return Author(f"guest-{_random_letters(4)}" if name is None else parse_name(name))


def _random_letters(count: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(count))
