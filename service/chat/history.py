"""Messages by HTTP: reading pages of a room, and posting without a websocket."""

import json
import secrets

from quart import Blueprint, Response, request

from service.chat import pages
from service.chat.authors import identify
from service.chat.connection import Chat
from service.chat.parsing import is_room, parse_post
from service.chat.protocol import BIGGEST, PAGE, Ack, Error, Page, encode
from service.chat.store import Draft
from service.database import Database
from service.errors import Conflict, Invalid, Unavailable

DEFAULT_LIMIT, MAX_LIMIT = 50, 200


def add_history(blueprint: Blueprint, chat: Chat, database: Database) -> None:
    """Add the routes below /api/rooms."""

    @blueprint.get("/api/rooms/<room>/messages")
    async def get_messages(room: str) -> Response:
        check_room(room)
        return json_response(PAGE.dump_json(await read_page(database, room), by_alias=True))

    @blueprint.post("/api/rooms/<room>/messages")
    async def post_message(room: str) -> Response:
        check_room(room)
        post = parse_post(parse_json(await request.get_data(as_text=False)))
        author = identify(request, post.author)
        draft = Draft(room=room, id=post.id or secrets.token_hex(16), author=author.name, text=post.text)
        answer = await chat.writer.post(draft)
        if isinstance(answer, Ack):
            return json_response(encode(answer), 200 if answer.dup else 201)
        raise refusal(answer)


async def read_page(database: Database, room: str) -> Page:
    """Read the page that the query asks for."""
    limit = number("limit", default=DEFAULT_LIMIT, least=1, most=MAX_LIMIT)
    if "after" not in request.args:
        before = number("before", default=BIGGEST, least=0, most=BIGGEST)
        return await database.read(pages.select_before, room=room, before=before, limit=limit)
    if "before" in request.args:
        raise Invalid("after, before: one of them at most")
    after = number("after", default=0, least=0, most=BIGGEST)
    (page,) = await database.read(pages.select_after, {room: after}, limit=limit)
    return page


def number(name: str, *, default: int, least: int, most: int) -> int:
    """Return a whole number of the query. Raises Invalid, naming it."""
    given = request.args.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) <= len(str(BIGGEST)) and least <= int(given) <= most):
        raise Invalid(f"{name}: must be a whole number from {least} to {most}, not {given[:40]!r}")
    return int(given)


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
