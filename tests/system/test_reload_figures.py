"""What a save costs, on a quiet machine with two processors: `make drill`, or `pytest -m drill -s` on this file."""

import statistics
from collections import Counter

import httpx2
import pytest
import trio
from trio_websocket import ConnectionClosed

from service.platform.testing.processes import close_code, open_websocket
from tests.system.reloaded import PROBE, Clone, developing, wait_said

SAVES, WRONG = 20, 10  # so many saves, of which the one with this number has a syntax error
PROMISED = 1.5  # seconds from a save to an answer of the new code


async def ask_on(url: str, seen: Counter[str], keep: bool) -> None:
    headers = {} if keep else {"Connection": "close"}
    async with httpx2.AsyncClient(timeout=30) as client:
        while True:
            try:
                seen[str((await client.get(url + "/answer", headers=headers)).status_code)] += 1
            except httpx2.HTTPError as error:
                seen[repr(error)] += 1
            await trio.sleep(0.02)


async def stay(url: str, seen: Counter[int]) -> None:
    """Hold a websocket, and open the next one when the service closes it."""
    while True:
        async with open_websocket(url, "/wait") as websocket:
            try:
                while True:
                    await websocket.get_message()
            except ConnectionClosed as closed:
                seen[close_code(closed)] += 1


async def answered(url: str, text: str) -> float:
    """Return the seconds until a new connection gets this answer."""
    begun = trio.current_time()
    async with httpx2.AsyncClient(timeout=30) as client:
        with trio.fail_after(30):
            while (await client.get(url + "/answer", headers={"Connection": "close"})).text != text:
                await trio.sleep(0.02)
    return trio.current_time() - begun


@pytest.mark.drill
async def test_twenty_saves_under_load(clone: Clone) -> None:
    answers: Counter[str] = Counter()
    closes: Counter[int] = Counter()
    seconds: list[float] = []
    async with developing(clone) as service, trio.open_nursery() as nursery:
        for keep in (False, True):
            nursery.start_soon(ask_on, service.public, answers, keep)
        nursery.start_soon(stay, service.public, closes)
        for number in range(SAVES):
            await trio.sleep(2)  # a person saves no faster
            if number == WRONG:
                clone.save(PROBE + "\ndef broken(:\n")
                await wait_said(service, "not reloaded")
            else:
                clone.answer(f"answer {number}")
                seconds.append(await answered(service.public, f"answer {number}"))
        await trio.sleep(2)
        nursery.cancel_scope.cancel()

    most = max(seconds)
    print(f"\nfrom a save to new code: median {statistics.median(seconds):.2f} s, most {most:.2f} s")
    print(f"answers {dict(answers)}, websockets closed {dict(closes)}")
    assert set(answers) == {"200"}
    assert set(closes) == {1012}
    assert most <= PROMISED
