"""The simple mode, the announcement's example: every text goes to all others in the lobby, and that is all.

Its messages are stored and relayed like any other, so members of both modes, on all replicas, see each other's.
"""

import secrets

import trio

from service.chat.authors import Author
from service.chat.backlog import Answer
from service.chat.connection import Chat
from service.chat.frames import encode_texts
from service.chat.protocol import MAX_TEXT, Close, Error, Joined, Presence
from service.chat.rules import Action
from service.chat.store import Draft
from service.chat.tail import Burst, Entry
from service.platform.http import Conversation, Ending
from service.platform.server import Websocket

LOBBY = "lobby"
NOT_A_TEXT = Ending(Close.POLICY, f"a message is a text of 1 to {MAX_TEXT} characters, without NUL")
NOT_STORED = Ending(Close.TRY_AGAIN_LATER, "the last message may be stored or not; try again later")


class SimpleConversation:
    """A member of the lobby that is shown texts alone, and not its own."""

    def __init__(self, chat: Chat, socket: Websocket, author: Author) -> None:
        self._chat = chat
        self._socket = socket
        self._author = author
        self._connection = Conversation(chat.conversations, socket)
        self._own: set[str] = set()  # ids of what it sent and has not come by yet

    async def run(self) -> None:
        actions: tuple[Action, ...] = ("read", "write")
        for action in actions:
            self._chat.ask(self._author.caller, LOBBY, action)
        room = await self._chat.rooms.open_room(LOBBY, None)
        seat, _ = room.join(self, ref="", since=None)
        try:
            await self._socket.accept()  # not sooner: while the database is away the upgrade is answered 503
            await self._connection.run(self._receive)  # its goodbye is the close code: this mode has no frames
        finally:
            room.leave(seat)

    def deliver(self, burst: Burst) -> None:
        if self._own:
            burst = Burst([entry for entry in burst.entries if not self._is_own(entry)])
        if burst.entries:
            self._connection.send_frame(burst.frame(encode_texts))

    def _is_own(self, entry: Entry) -> bool:
        own = entry.message.id in self._own
        self._own.discard(entry.message.id)
        return own

    def move(self, joined: Joined) -> None:
        """A gap is nothing that this mode could say."""

    def count(self, presence: Presence) -> None:
        """Nor is a number of members."""

    async def _receive(self, _: trio.Nursery) -> None:
        while True:
            text = await self._socket.receive()
            if not isinstance(text, str) or not 0 < len(text) <= MAX_TEXT or "\0" in text:
                self._connection.end(NOT_A_TEXT)
                return
            await self._wait_for_rate()
            self._submit(text)

    async def _wait_for_rate(self) -> None:
        """Hold a fast sender back: without error frames to tell it, dropping its texts would be silent."""
        wait = self._connection.take()
        while wait:
            await trio.sleep(wait)
            wait = self._connection.take()

    def _submit(self, text: str) -> None:
        draft = Draft(
            room=LOBBY, id=secrets.token_hex(16), author=self._author.name, subject=self._author.subject, text=text
        )
        self._own.add(draft.id)
        self._chat.writer.submit(draft, owner=self, answer=self._answer)

    def _answer(self, answer: Answer) -> None:
        if isinstance(answer, Error):
            self._connection.end(NOT_STORED)
