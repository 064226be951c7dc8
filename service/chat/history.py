"""Messages by HTTP: reading pages of a room, and posting without a websocket."""

import json
import secrets
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass
from quart import Blueprint, Response, request
from quart_schema import document_request, validate_querystring

from service.chat import pages
from service.chat.authors import identify
from service.chat.connection import Chat
from service.chat.parsing import is_room, parse_post
from service.chat.protocol import BIGGEST, PAGE, Ack, Error, Page, Post, RoomName, encode
from service.chat.store import Draft
from service.database import Database
from service.errors import Conflict, Invalid, Unavailable
from service.openapi import replies

DEFAULT_LIMIT, MAX_LIMIT = 50, 200


def digits(value: object) -> object:
    """Refuse what Python would take for a number and no client means: signs, underscores, other scripts' digits."""
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise ValueError
    return value


type Bound = Annotated[
    int, BeforeValidator(digits), Field(ge=0, le=BIGGEST, description=f"a whole number from 0 to {BIGGEST}")
]
type Limit = Annotated[
    int,
    BeforeValidator(digits),
    Field(ge=1, le=MAX_LIMIT, description=f"a whole number from 1 to {MAX_LIMIT}"),
]


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which messages; `after` and `before` are seqs, one of them at most. Neither: the last ones."""

    after: Bound | None = None
    before: Bound | None = None
    limit: Limit = DEFAULT_LIMIT


def add_history(blueprint: Blueprint, chat: Chat, database: Database) -> None:
    """Add the routes below /api/rooms."""

    @blueprint.get("/api/rooms/<room>/messages")
    @validate_querystring(Question)
    @replies(Page)
    async def get_messages(room: RoomName, query_args: Question) -> Response:
        """Read messages of a room, in order; an unknown room is empty. `after` and `before`: one of them at most."""
        check_room(room)
        return json_response(PAGE.dump_json(await read_page(database, room, query_args), by_alias=True))

    @blueprint.post("/api/rooms/<room>/messages")
    @document_request(Post)
    @replies(Ack, 200, 201)
    @replies(Conflict)
    async def post_message(room: RoomName) -> Response:
        """Store a message: 201, or 200 when it was stored before under this id. Other text under it is a conflict."""
        check_room(room)
        post = parse_post(parse_json(await request.get_data(as_text=False)))
        author = identify(request, post.author)
        draft = Draft(room=room, id=post.id or secrets.token_hex(16), author=author.name, text=post.text)
        answer = await chat.writer.post(draft)
        if isinstance(answer, Ack):
            return json_response(encode(answer), 200 if answer.dup else 201)
        raise refusal(answer)


async def read_page(database: Database, room: str, question: Question) -> Page:
    """Read the page that the query asks for."""
    if question.after is None:
        before = BIGGEST if question.before is None else question.before
        return await database.read(pages.select_before, room=room, before=before, limit=question.limit)
    if question.before is not None:
        raise Invalid("after, before: one of them at most")
    (page,) = await database.read(pages.select_after, {room: question.after}, limit=question.limit)
    return page


def check_room(room: str) -> None:
    if not is_room(room):
        raise Invalid(f"room: must be 1 to 64 of a-z, 0-9 and -, not {room[:40]!r}")


def parse_json(body: str | bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a number of thousands of digits, nested too deeply
        raise Invalid("body: must be JSON") from None


def refusal(error: Error) -> Conflict | Unavailable:
    if error.code == "conflict":
        return Conflict(error.message)
    return Unavailable(error.message, retry_after=(error.retry_after_ms or 1000) / 1000)


def json_response(body: bytes, status: int = 200) -> Response:
    return Response(body, status, content_type="application/json")
