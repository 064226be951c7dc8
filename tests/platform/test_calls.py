"""Calls to other services: no answer is one error, in time, and opening a client holds nobody up."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest
import structlog
import trio

from service.platform.calls import answered_by, open_client
from service.platform.errors import PeerAway
from service.platform.settings import SettingsError
from service.platform.telemetry.logs import configure_logs

type Answer = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def other_service(answer: Answer) -> AsyncIterator[str]:
    """Yield the address of a service that does so with each connection."""
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def say_nothing(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def begin_to_answer(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    await trio.sleep_forever()


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def set_a_cookie(stream: trio.SocketStream, asked: list[bytes]) -> None:
    while part := bytes(await stream.receive_some()):
        asked.append(part.lower())
        await stream.send_all(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=ada\r\nContent-Length: 0\r\n\r\n")


async def redirect(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")


async def test_a_call_is_not_logged_with_what_goes_to_and_fro(capsys: pytest.CaptureFixture[str]) -> None:
    """At the level debug the clients' own lines had the query that was sent, and all headers of the answer."""
    configure_logs("debug", "json")
    async with other_service(partial(set_a_cookie, asked=[])) as url, open_client(url) as client:
        await client.get("/orders", params={"key": "ada"}, headers={"Authorization": "Bearer ada"})
    structlog.reset_defaults()

    assert "ada" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (say_nothing, "the warehouse has not answered within 0.2 s"),
        (begin_to_answer, "the warehouse has not answered within 0.2 s"),
        (hang_up, "the warehouse cannot be reached"),
    ],
)
async def test_no_whole_answer_is_one_error_that_names_the_other(answer: Answer, said: str) -> None:
    async with other_service(answer) as url, open_client(url) as client:
        with pytest.raises(PeerAway, match=said) as raised, answered_by("the warehouse", within=0.2):
            await client.post("/orders")

    assert (raised.value.status, raised.value.headers) == (503, {"Retry-After": "1"})


async def at_once(*calls: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)


async def test_of_several_calls_at_once_one_without_an_answer_is_that_error_too() -> None:
    async with other_service(redirect) as url, other_service(hang_up) as gone, open_client() as client:
        calls = [partial(client.get, address) for address in (url, gone, gone)]
        with pytest.raises(PeerAway, match="the warehouse cannot be reached"), answered_by("the warehouse", within=10):
            await at_once(*calls)


async def test_a_failure_of_ones_own_beside_it_is_not_taken_for_the_others() -> None:
    async def fail() -> None:
        raise ValueError("ours")

    async with other_service(hang_up) as gone, open_client() as client:
        with pytest.raises(ExceptionGroup) as raised, answered_by("the warehouse", within=10):
            await at_once(partial(client.get, gone), fail)

    assert raised.group_contains(ValueError)


async def test_a_status_is_an_answer_and_is_not_followed_elsewhere() -> None:
    async with other_service(redirect) as url, open_client(url) as client:
        with answered_by("the warehouse", within=10):
            assert (await client.get("/")).status_code == 302


async def test_a_status_that_is_refused_is_not_taken_for_no_answer() -> None:
    async with other_service(redirect) as url, open_client(url) as client:
        with pytest.raises(httpx2.HTTPStatusError), answered_by("the warehouse", within=10):
            (await client.get("/")).raise_for_status()


@pytest.mark.usefixtures("all_authorities")
async def test_others_go_on_while_the_certificates_are_read() -> None:
    rounds = 0

    async def go_on() -> None:
        nonlocal rounds
        while True:
            await trio.lowlevel.checkpoint()
            rounds += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        async with open_client():
            pass
        nursery.cancel_scope.cancel()

    assert rounds > 20  # without a thread there are as many as the opening has checkpoints: two or three


async def test_what_an_answer_to_one_asks_to_keep_goes_with_nobody_elses_call() -> None:
    asked: list[bytes] = []
    async with other_service(partial(set_a_cookie, asked=asked)) as url, open_client(url) as client:
        await client.get("/orders")
        await client.get("/orders")
        client.cookies.set("mine", "1")
        await client.get("/orders")

    assert [b"cookie: " in part for part in asked] == [False, False, True]
    assert b"cookie: mine=1\r\n" in asked[2]


async def test_a_file_for_keys_that_cannot_be_written_is_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "none" / "keys"))

    with pytest.raises(SettingsError, match="SSLKEYLOGFILE: must be a file that can be written: No such file"):
        async with open_client():
            pass
