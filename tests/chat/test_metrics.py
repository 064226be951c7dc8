"""What the chat shows to operators; dashboards and alerts build on the names."""

import httpx2
import trio

from service.chat import CHAT
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from tests.chat.frames import open_raw
from tests.chat.test_conversation import join, say
from tests.platform.telemetry.test_metrics import names, samples

SAID = 40


async def test_a_stored_message_is_counted_and_its_delivery_timed(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [CHAT]) as urls, httpx2.AsyncClient() as client:
        await client.post(urls.public + "/api/rooms/x/messages", json={"text": "hello"})
        text = (await client.get(urls.management + "/metrics")).text

    found = samples(text)
    assert found["chat_messages_total"] == found["chat_delivery_seconds_count"] == 1
    assert names(text) >= {"chat_delivery_seconds_bucket", "chat_outbox_overflows_total"}


async def test_what_is_committed_here_is_not_read_back(make_settings: MakeSettings) -> None:
    """Its own NOTIFY mostly comes before the process knows that the commit is done."""
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [CHAT]) as urls, httpx2.AsyncClient() as client, open_raw(urls.public) as line:
        await join(line)
        begun = trio.current_time()
        for number in range(SAID):
            await say(line, f"i{number}")
            await line.expect("message")
        ticks = trio.current_time() - begun + 1  # each looks where the rooms are, and may come before the delivery
        text = (await client.get(urls.management + "/metrics")).text

    units = {
        series: count for series, count in samples(text).items() if series.startswith("database_unit_seconds_count")
    }
    read = sum(count for series, count in units.items() if "read_after" in series)
    assert any("append" in series for series in units)
    assert read <= 1 + ticks  # the join's
