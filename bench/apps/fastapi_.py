"""FastAPI on uvicorn and uvloop, with SQLAlchemy's asyncio and asyncpg: what many would take instead."""

import asyncio
import socket
import sys
from typing import Annotated, Literal

import uvicorn
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

app = FastAPI()
members: set[WebSocket] = set()
sessions: async_sessionmaker[AsyncSession] | None = None


async def open_session() -> object:
    assert sessions is not None
    async with sessions() as session:
        yield session


class Item(BaseModel):
    text: str


@app.get("/livez")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/hello")
async def hello() -> dict[str, str]:
    return {"message": "hello"}


@app.get("/items/{number}")
async def get_item(number: int, session: Annotated[AsyncSession, Depends(open_session)]) -> dict[str, object]:
    row = (await session.execute(text("SELECT id, text FROM items WHERE id = :id"), {"id": number})).one()
    return {"id": row.id, "text": row.text}


@app.post("/items", status_code=201)
async def post_item(item: Item, session: Annotated[AsyncSession, Depends(open_session)]) -> dict[str, int]:
    inserted = await session.execute(text("INSERT INTO items (text) VALUES (:text) RETURNING id"), {"text": item.text})
    await session.commit()
    return {"id": inserted.scalar_one()}


@app.websocket("/ws")
async def room(websocket: WebSocket) -> None:
    await websocket.accept()
    members.add(websocket)
    try:
        while True:
            said = await websocket.receive_text()
            for member in tuple(members):
                await member.send_text(said)
    except WebSocketDisconnect:
        members.discard(websocket)


async def main(database_url: str, parser: Literal["h11", "httptools"]) -> None:
    global sessions  # noqa: PLW0603  # as its tutorials do
    if database_url:
        engine = create_async_engine(database_url, pool_size=10, max_overflow=0)
        sessions = async_sessionmaker(engine)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, http=parser, log_level="error", access_log=False, ws="websockets", lifespan="off")
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        url, *parser = sys.argv[1:] or [""]
        runner.run(main(url, "httptools" if "httptools" in parser else "h11"))
