"""Messages by HTTP: reading pages of a room, and posting without a websocket."""

import secrets
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass
from quart import Blueprint, Response, request
from quart_schema import document_request, validate_querystring

from service.chat import pages
from service.chat.authors import identify
from service.chat.connection import Chat
from service.chat.parsing import parse_post
from service.chat.protocol import BIGGEST, Ack, Error, Page, Post, RoomName, adapter_of, encode
from service.chat.store import Draft
from service.platform.database import Database
from service.platform.errors import Conflict, Forbidden, ServiceError, Unavailable
from service.platform.http import caller, limited, replies, unlimited
from service.platform.identity import signed_in

DEFAULT_LIMIT, MAX_LIMIT = 50, pages.MOST


def digits(value: object) -> object:
    """Refuse what Python would take for a number and no client means: signs, underscores, other scripts' digits."""
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise ValueError
    return value


# The limits stand before the validator, or JSON Schema does not get them.
type Bound = Annotated[
    int, Field(ge=0, le=BIGGEST, description="a whole number from 0 to 2^63 - 1"), BeforeValidator(digits)
]
type Limit = Annotated[
    int, Field(ge=1, le=MAX_LIMIT, description=f"a whole number from 1 to {MAX_LIMIT}"), BeforeValidator(digits)
]


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which messages, by seq: the first after one, or else the last before one."""

    after: Bound | None = None
    before: Bound = BIGGEST
    limit: Limit = DEFAULT_LIMIT


def add_history(blueprint: Blueprint, chat: Chat, database: Database) -> None:
    """Add the routes below /api/rooms."""

    @blueprint.get("/api/rooms/<room>/messages")
    @signed_in
    @unlimited("a read of one page, by its index")
    @validate_querystring(Question)
    @replies(Page)
    @replies(Forbidden)
    async def get_messages(room: RoomName, query_args: Question) -> Response:
        """Read messages of a room, in order: the first after a seq, or else the last before one.

        An unknown room is empty.
        """
        chat.ask(await caller(), room, "read")
        return json_response(adapter_of(Page).dump_json(await read_page(database, room, query_args), by_alias=True))

    @blueprint.post("/api/rooms/<room>/messages")
    @signed_in
    @limited()
    @document_request(Post)
    @replies(Ack, 200, 201)
    @replies(Conflict)
    async def post_message(room: RoomName) -> Response:
        """Store a message: 201, or 200 when it was stored before under this id. Other text under it is a conflict."""
        post = parse_post(await request.get_json())
        author = await identify(request, post.author)
        chat.ask(author.caller, room, "write")
        draft = Draft(
            room=room, id=post.id or secrets.token_hex(16), author=author.name, subject=author.subject, text=post.text
        )
        answer = await chat.writer.post(draft)
        if isinstance(answer, Ack):
            return json_response(encode(answer), 200 if answer.dup else 201)
        raise refusal(answer, made="" if post.id else draft.id)


async def read_page(database: Database, room: str, question: Question) -> Page:
    """Read the page that the query asks for."""
    before, limit = question.before, question.limit
    if question.after is None:
        return await pages.read_before(database, room, before, limit=limit)
    return await pages.read_after(database, room, question.after, before=before, limit=limit)


def refusal(error: Error, *, made: str) -> ServiceError:
    """Return what the caller is told; with the id that was `made` for it, as it may be needed to send it again."""
    if error.code == "conflict":
        return Conflict(error.message)
    if not error.retryable:
        return ServiceError(error.message)
    told = f"{error.message}: {made}" if made else error.message
    return Unavailable(told, retry_after=(error.retry_after_ms or 1000) / 1000)


def json_response(body: bytes, status: int = 200) -> Response:
    return Response(body, status, content_type="application/json")
