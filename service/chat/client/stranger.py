"""Whether it is a chat that answers. Of concern until it has greeted us: what ends later on may be a restart."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from service.platform.client import ClosedError, NothingThere

# Refusals of who may take us soon; all from 500 on are, too. The rest says that the question is wrong, or the place.
SOON = {408, 425, 429}
UNAUTHENTICATED = 401
SILENT_TRIES = 5  # connections that end without an answer: a proxy may do that for a moment, where a replica restarts


class NoChatError(NothingThere):
    """Why there is nothing to come back to, for the person at the terminal."""


class Stranger:
    """Who has never greeted us."""

    def __init__(self, url: str, *, with_token: bool) -> None:
        self._url = url
        self._with_token = with_token
        self._silent = 0  # endings without an answer, in a row

    def judge(self, lost: BaseException) -> None:
        """Raise NoChatError if an attempt that was lost in this way shows that no chat is there for us."""
        refused = lost.code if isinstance(lost, ClosedError) and lost.code < 1000 else None
        ended = isinstance(lost, ClosedError | trio.BrokenResourceError) and refused is None
        self._silent = self._silent + 1 if ended else 0
        if refused == UNAUTHENTICATED:
            if not self._with_token:  # a file's token may have ended, and whoever renews it writes it there
                raise NoChatError(f"{self._url} wants a token: name a file with one by --token-file")
        elif refused is not None and refused < 500 and refused not in SOON:
            raise NoChatError(f"{self._url} serves no chat: {lost}")
        elif self._silent == SILENT_TRIES:
            raise NoChatError(f"{self._url} serves no chat: it ends each connection without an answer")

    @contextmanager
    def greeting(self) -> Iterator[None]:
        """Raise NoChatError for what comes in the place of a greeting, and is none."""
        try:
            yield
        except (LookupError, TypeError, ValueError) as error:
            raise NoChatError(f"{self._url} serves no chat: it greets in another way") from error
