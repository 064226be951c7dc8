"""The path of a message, as README.md has it, is the one that a message takes."""

import trio
from trio.testing import wait_all_tasks_blocked

from service.platform.testing.wire import RawWebsocket
from tests.chat.conftest import Start
from tests.chat.frames import open_raw
from tests.platform.path import ROOT, beneath, check_document, newcomers, recorded, usual

README = ROOT / "service" / "chat" / "README.md"


async def say(number: int, here: RawWebsocket, there: RawWebsocket) -> None:
    """Send a message and wait until it is acknowledged, and at the other member."""
    await here.send({"type": "send", "room": "lobby", "id": str(number), "text": "hello"})
    missing = {"ack", "message"}  # in either order
    while missing:
        missing.discard((await here.frame())["type"])
    await there.expect("message")


async def test_the_path_of_a_message_is_the_one_in_the_document(start: Start) -> None:
    running = await start()
    paths: list[list[str]] = []
    with newcomers() as new, trio.fail_after(30):
        async with open_raw(running.url, "/ws?name=ann") as here, open_raw(running.url, "/ws?name=bob") as there:
            for line in (here, there):
                await line.send({"type": "join", "room": "lobby", "ref": "r"})
                await line.expect("joined")
            for number in range(12):
                await wait_all_tasks_blocked(0.05)  # what the one before set off is over
                with recorded(lambda task: new.include(task) or beneath("Writer.run")) as path:
                    await say(number, here, there)
                paths.append(path)

    check_document(README, usual(paths[1:]))  # the first one makes the room
