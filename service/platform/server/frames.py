"""A websocket message as it goes over the wire, encoded once for however many sockets it is sent to."""

from dataclasses import dataclass

_TEXT, _BINARY = 0x81, 0x82  # FIN and the opcode, RFC 6455, 5.2; a server's frames carry no mask
_SHORT, _TWO_BYTES, _EIGHT_BYTES = 125, 126, 127


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole text message. A droppable one is the first to go when a member reads too slowly."""

    data: bytes
    droppable: bool = False


def encode_frame(text: str, *, droppable: bool = False) -> Frame:
    """Return `text` as a frame; raises UnicodeEncodeError when it holds a lone surrogate."""
    return Frame(encode_message(text), droppable)


def encode_message(message: str | bytes) -> bytes:
    """Return a whole message as the bytes of one frame."""
    opcode, payload = (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
    length = len(payload)
    if length <= _SHORT:
        header = bytes((opcode, length))
    elif length < 1 << 16:
        header = bytes((opcode, _TWO_BYTES)) + length.to_bytes(2)
    else:
        header = bytes((opcode, _EIGHT_BYTES)) + length.to_bytes(8)
    return header + payload
