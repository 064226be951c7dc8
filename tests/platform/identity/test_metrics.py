"""What an operator sees of who is asking: counted by reasons that come from code alone."""

import re
import time

import httpx2
import trio

from service.platform.identity.caller import Flaw
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.wire import Closed
from tests.platform.identity.test_sign_in import logout, sites
from tests.platform.identity.test_tokens import ATTACKS
from tests.platform.identity.test_websockets import ticket
from tests.platform.identity.world import DOORS, FREE, open_socket, upgrade, world


async def read(management: str) -> dict[str, float]:
    """Return the samples of identity."""
    async with httpx2.AsyncClient(verify=False) as client:  # certificates take a tenth of a second to read
        text = (await client.get(management + "/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^(identity_\S*(?:{.*})?) (\S+)$", text, re.MULTILINE)}


def tokens(result: str) -> str:
    return f'identity_tokens_total{{result="{result}"}}'


async def test_tokens_are_counted_by_what_became_of_them(make_settings: MakeSettings) -> None:
    async with world(make_settings) as here:
        good = here.issuer.token()
        for _ in range(3):
            await here.ask(good)
        for attack in ("expired", "another audience", "an unknown key", "alg not allowed", "typ of a proof"):
            await here.ask(ATTACKS[attack](here.issuer))
        seen = await read(here.urls.management)

    assert (seen[tokens("accepted")], seen["identity_tokens_remembered_total"]) == (1, 2)
    for reason in ("expired", "audience", "key", "algorithm", "type"):
        assert seen[tokens(reason)] == 1, reason


async def test_whatever_is_sent_makes_no_series_of_its_own(make_settings: MakeSettings) -> None:
    async with world(make_settings) as here:
        for attack in ATTACKS.values():
            await here.ask(attack(here.issuer))
        seen = await read(here.urls.management)

    results = {name.partition('"')[2].rstrip('"}') for name in seen if name.startswith("identity_tokens_total")}
    assert results <= set(Flaw)
    assert sum(seen[tokens(result)] for result in results) == len(ATTACKS)


async def test_the_provider_and_its_keys_are_shown(make_settings: MakeSettings) -> None:
    async with world(make_settings, away=True) as here:
        assert await here.ask(here.issuer.token()) == 503
        away = await read(here.urls.management)
        here.issuer.away = False
        with trio.fail_after(30):
            while (there := await read(here.urls.management))["identity_provider_up"] != 1:
                await trio.sleep(0.05)

    assert (away["identity_provider_up"], away["identity_keys"], away[tokens("no keys")]) == (0, 0, 1)
    assert "identity_keys_age_seconds" not in away
    assert there["identity_keys"] == 2
    assert 0 <= there["identity_keys_age_seconds"] < 30
    assert there['identity_key_fetches_total{result="failed"}'] >= 1
    assert there['identity_key_fetches_total{result="fetched"}'] == 1


async def test_without_an_issuer_nothing_is_away(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [DOORS]) as urls:
        seen = await read(urls.management)

    assert "identity_provider_up" not in seen
    assert "identity_keys" not in seen


async def test_tickets_and_ends_of_websockets_are_counted(make_settings: MakeSettings) -> None:
    async with world(make_settings) as here:
        offered = await ticket(here)
        await upgrade(here, offered=offered)
        await upgrade(here, offered=offered)
        async with open_socket(here, token=here.issuer.token(exp=time.time() - 59)) as socket:
            try:
                while True:
                    await socket.receive()
            except Closed:
                seen = await read(here.urls.management)

    for result in ("made", "taken", "refused"):
        assert seen[f'identity_tickets_total{{result="{result}"}}'] == 1, result
    assert seen['identity_websockets_ended_total{reason="the token has expired"}'] == 1


async def test_sign_ins_and_sessions_are_counted(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        browser, other = site.browser(), site.browser()
        for _ in range(2):  # the second takes the place of the first
            await browser.sign_in()
        await browser.ask("/auth/callback?state=x")
        await browser.ask("/auth/sign-out", "POST")
        await other.sign_in(sub="u-1")
        await site.client.post("/auth/backchannel-logout", data={"logout_token": logout(site)})
        seen = await read(site.management)

    assert seen["identity_sessions_begun_total"] == 3
    assert seen['identity_sign_ins_total{result="signed in"}'] == 3
    assert seen['identity_sign_ins_total{result="sign-in"}'] == 1
    for reason in ("replaced", "signed out", "by provider"):
        assert seen[f'identity_sessions_ended_total{{reason="{reason}"}}'] == 1, reason
