"""The frames of `chat.v1`, in and out, with their limits. Pure: text in, dataclasses out.

The dataclasses are the one declaration of the protocol: they validate what clients send, write what the server sends,
and JSON Schema is made from them. No sockets, no SQL, no clock.
"""

import enum
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

SUBPROTOCOL = "chat.v1"
MAX_TEXT = 4_000  # code points
MAX_LABEL = 64  # characters of an id or a ref
MAX_NAME = 64
MAX_ROOMS = 32  # of one connection
MAX_STRIKES = 10  # bad frames in a row
ROOM_PATTERN = r"^[a-z0-9-]{1,64}$"
BIGGEST = 2**63 - 1  # what PostgreSQL's bigint holds


class Close(enum.IntEnum):
    """Close codes; those from 4000 are ours and tell a client whether to come back."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    POLICY = 1008, f"{MAX_STRIKES} bad frames in a row, or in simple mode a text that is none"
    TOO_BIG = 1009, "a frame larger than hello.max_bytes"
    INTERNAL = 1011, "an error of the server; reconnect and resume"
    RESTART = 1012, "the replica goes away; reconnect and resume"
    TRY_AGAIN_LATER = 1013, "simple mode only, which has no frame to say that a text was not stored"
    TOO_SLOW = 4008, "more waited to be read than the server keeps; reconnect and resume"
    SIGNED_OUT = 4401, "what proved who you are holds no more; come back with another token, and resume"
    SILENT = 4408, "nothing came for 2.5 heartbeats"
    RATE = 4429, "went on sending faster than hello.rate"


type RoomName = Annotated[str, Field(pattern=ROOM_PATTERN, description="1 to 64 of a-z, 0-9 and -")]
type Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL, pattern=r"^[^\x00]*$")]
type Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT, pattern=r"^[^\x00]*$")]
type Seq = Annotated[int, Field(strict=True, ge=0, le=BIGGEST), BeforeValidator(_whole)]
type Name = Annotated[  # checked by parse_name, in its canonical form
    str,
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "format": "printable"}),
]
type Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]  # RFC 3339
type Window = Annotated[  # in words that JSON Schema's drafts share
    tuple[int, int], WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2})
]
type Stamp = (
    Annotated[int, Field(strict=True, ge=-BIGGEST, le=BIGGEST)]
    | Annotated[float, Field(strict=True, gt=-BIGGEST, lt=BIGGEST)]
    | Annotated[str, Field(max_length=MAX_LABEL)]
)


def _whole(number: object) -> object:
    """Return a whole number as an int: to JSON Schema 5.0 is one as well, and some clients write all of theirs so."""
    if isinstance(number, float) and number.is_integer() and abs(number) <= BIGGEST:
        return int(number)
    return number


# What clients send.
@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """Where a member wants to go on: after `seq`, in `epoch`. Seq 0 asks for all that is kept, whatever the epoch."""

    epoch: Label | None = None
    seq: Seq

    __pydantic_config__: ClassVar = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"seq": {"const": 0}}},
                {"properties": {"epoch": {"type": "string"}}, "required": ["epoch"]},
            ]
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    type: Literal["join"] = "join"
    room: RoomName
    ref: Label
    since: Since | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """The same id and text once more is acked as the first was: repeating is safe."""

    type: Literal["send"] = "send"
    room: RoomName
    id: Label
    text: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    type: Literal["leave"] = "leave"
    room: RoomName
    ref: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    type: Literal["ping"] = "ping"
    t: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    type: Literal["pong"] = "pong"
    t: Stamp


type ClientFrame = Annotated[Join | Send | Leave | Ping | Pong, Field(discriminator="type")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """The body of POST /api/rooms/{room}/messages."""

    text: Text
    id: Label | None = None
    author: Annotated[Name | None, Field(alias="from")] = None


# What the server sends.
@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    n: int
    per_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    type: Literal["hello"] = "hello"
    protocol: str = SUBPROTOCOL
    server: str
    session: str
    heartbeat_ms: int
    max_bytes: int
    rate: Rate | None  # None is no limit
    retention_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The next `message.seq` of the room is `from + 1`; with `gap`, older ones come by HTTP."""

    type: Literal["joined"] = "joined"
    ref: str
    room: str
    epoch: str
    start: Annotated[int, Field(alias="from")]
    head: int
    gap: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Sent only after COMMIT. `dup` says that the id was stored before, by this or an earlier send."""

    type: Literal["ack"] = "ack"
    id: str
    room: str
    epoch: str
    seq: int
    dup: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    type: Literal["message"] = "message"
    room: str
    epoch: str
    seq: int
    id: str
    author: Annotated[str, Field(alias="from")]
    text: str
    at: Moment  # UTC, milliseconds; PostgreSQL's clock
    subject: Annotated[
        str | None, Field(description="whose it is, as the identity provider knows him; without it the name is a claim")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Messages of a room in order, and where the room stood when they were read; also the reply of GET .../messages.

    `oldest` is the oldest seq kept, head + 1 when nothing is.
    """

    room: str
    epoch: str
    head: int
    oldest: int
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    type: Literal["left"] = "left"
    room: str
    ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    type: Literal["presence"] = "presence"
    room: str
    count: int


type Code = Literal[
    "bad_frame", "unknown_type", "too_large", "rate_limited", "not_joined", "unavailable", "conflict", "forbidden"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """What was wrong with one frame; `id` or `ref` says which, where the frame had a sane one."""

    type: Literal["error"] = "error"
    code: Code
    message: str
    retryable: bool = False
    retry_after_ms: int | None = None
    id: str | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """Said before the service closes; come back at a random moment of the window."""

    type: Literal["bye"] = "bye"
    reason: str
    reconnect_after_ms: Window


type ServerFrame = Hello | Joined | Ack | Message | Left | Presence | Error | Ping | Pong | Bye

SERVER_FRAMES = (Hello, Joined, Ack, Message, Left, Presence, Error, Ping, Pong, Bye)


@cache
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    """Return what reads and writes frames of a kind; it is made for the first one, as it takes a start's time."""
    return TypeAdapter(kind)


def encode(frame: ServerFrame) -> bytes:
    """Return a frame as JSON in UTF-8, without the fields that are None."""
    kind: Any = type(frame)
    return adapter_of(kind).dump_json(frame, by_alias=True, exclude_none=True)
