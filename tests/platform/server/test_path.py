"""The path of a request, as README.md has it, is the one that a request takes."""

import trio

from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from tests.platform.features import PLAIN
from tests.platform.path import ROOT, check_document, newcomers, recorded, usual
from tests.platform.server.wire import Reader, get

README = ROOT / "service" / "platform" / "server" / "README.md"


async def test_the_path_of_a_request_is_the_one_in_the_document(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    paths: list[list[str]] = []
    async with booted(settings, [PLAIN]) as urls:
        for _ in range(12):
            with newcomers() as new, recorded(new.include) as path:
                client = await trio.open_tcp_stream("127.0.0.1", int(urls.public.rpartition(":")[2]))
                await client.send_all(get("/plain"))
                status, _, _ = await Reader(client).response()
            await client.aclose()
            paths.append(path)
            assert status == 200

    check_document(README, usual(paths[1:]))  # for the first one the database is connected
