"""What the chat shows to operators; dashboards and alerts build on the names."""

import httpx2

from service.chat import CHAT
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from tests.platform.telemetry.test_metrics import names, samples


async def test_a_stored_message_is_counted_and_its_delivery_timed(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [CHAT]) as urls, httpx2.AsyncClient() as client:
        await client.post(urls.public + "/api/rooms/x/messages", json={"text": "hello"})
        text = (await client.get(urls.management + "/metrics")).text

    found = samples(text)
    assert found["chat_messages_total"] == found["chat_delivery_seconds_count"] == 1
    assert names(text) >= {"chat_delivery_seconds_bucket", "chat_outbox_overflows_total"}
