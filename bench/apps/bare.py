"""QuartTrio on Hypercorn's Trio worker as they come."""

import hypercorn.trio
import trio
from hypercorn.config import Config
from quart import Response, Websocket, websocket
from quart_trio import QuartTrio

app = QuartTrio(__name__)
members: set[Websocket] = set()


@app.get("/livez")
async def live() -> Response:
    return Response('{"status": "ok"}', content_type="application/json", headers={"Cache-Control": "no-store"})


@app.get("/hello")
async def hello() -> dict[str, str]:
    return {"message": "hello"}


@app.websocket("/ws")
async def room() -> None:
    member = websocket._get_current_object()
    await websocket.accept()
    members.add(member)
    try:
        while True:
            said = await websocket.receive()
            for other in tuple(members):
                await other.send(said)
    finally:
        members.discard(member)


async def main() -> None:
    config = Config.from_mapping(bind="127.0.0.1:0", errorlog=None)
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
            await hypercorn.trio.serve(app, config, task_status=task_status)

        addresses = await nursery.start(run)
        print(addresses[0].rpartition(":")[2], flush=True)


if __name__ == "__main__":
    trio.run(main)
