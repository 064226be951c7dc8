"""The smallest feature."""

from service.hello import open_hello
from service.platform.feature import Feature
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings


async def test_hello_greets_and_names_what_is_wrong(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [Feature("hello", open=open_hello)]) as urls, Client(urls.public) as client:
        hello = await client.get("/api/hello", params={"name": "Ada"})
        wrong = await client.get("/api/hello", params={"name": "x" * 65})

    assert hello.json()["message"] == "hello, Ada"
    assert (wrong.status_code, wrong.json()["detail"]) == (400, f"name: must be 1 to 64 characters, not {'x' * 65!r}")
