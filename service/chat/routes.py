"""The chat as a feature: what lives as long as it does, and its routes. Start reading here."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import trio
from quart import Blueprint
from quart.globals import app_ctx

from service.chat import relay
from service.chat.asyncapi import add_asyncapi
from service.chat.authors import identify
from service.chat.browser import add_page
from service.chat.connection import Chat
from service.chat.conversation import RoomsConversation
from service.chat.history import add_history
from service.chat.presence import Presence
from service.chat.protocol import SUBPROTOCOL
from service.chat.rooms import Rooms
from service.chat.rules import Rule, check
from service.chat.simple import SimpleConversation
from service.chat.statistics import ChatStatistics, show, show_delivery
from service.chat.writer import Writer
from service.platform.errors import Invalid
from service.platform.feature import Resources
from service.platform.http import HEARTBEAT, limited, open_conversations
from service.platform.identity import signed_in
from service.platform.server import Websocket


@asynccontextmanager
async def open_chat(
    resources: Resources, *, heartbeat: float = HEARTBEAT, rule: Rule = check
) -> AsyncIterator[Blueprint]:
    settings, database = resources.settings, resources.database
    rooms = Rooms(database, readers=max(1, settings.database_connections // 2))
    replica = secrets.token_hex(4)
    presence, statistics = Presence(replica), ChatStatistics(observe_delivery=show_delivery(resources.metrics))
    writer = Writer(database, rooms.offer, statistics)
    async with open_conversations(resources, heartbeat=heartbeat) as conversations, trio.open_nursery() as nursery:
        chat = Chat(
            settings=settings,
            rooms=rooms,
            writer=writer,
            conversations=conversations,
            replica=replica,
            rule=rule,
            statistics=statistics,
        )
        show(resources.metrics, statistics, conversations, waiting=lambda: writer.waiting)
        nursery.start_soon(database.keep_running, relay.listen, database, rooms, presence)
        nursery.start_soon(database.keep_running, relay.tick, database, rooms, presence)
        nursery.start_soon(database.keep_running, relay.read_on, rooms)
        nursery.start_soon(database.keep_running, writer.run)
        yield create_routes(resources, chat)
        nursery.cancel_scope.cancel()


def create_routes(resources: Resources, chat: Chat) -> Blueprint:
    blueprint = Blueprint("chat", __name__)
    add_history(blueprint, chat, resources.database)
    add_page(blueprint)
    add_asyncapi(blueprint, resources.settings.auth_issuer)

    @blueprint.websocket("/ws")
    @signed_in
    @limited()  # and what is sent by SERVICE_RATE_PER_CONNECTION, in the conversation
    async def converse() -> None:
        """Speak the mode that the client offers; a bad offer or name is a 400 before the upgrade."""
        socket = cast(Websocket, app_ctx.websocket)
        author = await identify(socket)
        if not socket.requested_subprotocols:
            await SimpleConversation(chat, socket, author).run()
        elif SUBPROTOCOL in socket.requested_subprotocols:
            await socket.accept(subprotocol=SUBPROTOCOL)
            await RoomsConversation(chat, socket, author, secrets.token_hex(8)).run()
        else:
            raise Invalid(f"subprotocol: must be {SUBPROTOCOL}, or none for plain texts")

    return blueprint
