"""Messages as websocket frames, for both modes; each is encoded once, and a burst is one piece of bytes."""

from collections.abc import Sequence

from service.chat.protocol import Message, ServerFrame, encode
from service.chat.tail import Entry
from service.platform.server import Frame, encode_frame


def encode_server_frame(frame: ServerFrame, *, droppable: bool = False) -> Frame:
    return encode_frame(encode(frame).decode(), droppable=droppable)


def encode_burst(entries: Sequence[Entry]) -> Frame:
    """Return messages as chat.v1 shows them."""
    return Frame(b"".join(entry.frame(encode_server_frame).data for entry in entries))


def encode_texts(entries: Sequence[Entry]) -> Frame:
    """Return messages as the simple mode shows them."""
    return Frame(b"".join(entry.frame(_encode_text).data for entry in entries))


def _encode_text(message: Message) -> Frame:
    return encode_frame(message.text)
