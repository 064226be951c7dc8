"""`breakpoint()` in a handler under `service dev`: nobody disturbs the prompt, and the request is not given up."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio

from service.platform.testing.processes import PATIENCE, ROOT, SERVICE, descendants, environment
from tests.system.reloaded import Clone
from tests.system.terminal import CTRL_C, Terminal, open_terminal
from tests.system.test_dev import wait_gone


@asynccontextmanager
async def developing(clone: Clone, *arguments: str) -> AsyncIterator[tuple[Terminal, str]]:
    """Run `service dev` in a terminal, with deadlines that a person at a prompt would exceed; yield its URL, too."""
    settings = environment(
        bind="127.0.0.1:0", management_bind="127.0.0.1:0", request_deadline=1, slow_step=0.1, graceful_timeout=1
    )
    with open_terminal([*SERVICE, "dev", *arguments], clone.path, settings | {"PYTHONPATH": str(ROOT)}) as terminal:
        await terminal.wait_shown("is ready on ")
        url = (await terminal.wait_shown("\n")).strip()
        yield terminal, url


@pytest.mark.parametrize(
    ("path", "arguments"),
    [("/stop", ()), ("/stop", ("--no-reload",)), ("/stop-in-a-unit", ())],
    ids=["under a parent", "by itself", "in a unit"],
)
async def test_it_is_answered_however_long_somebody_looks(clone: Clone, path: str, arguments: tuple[str, ...]) -> None:
    async with developing(clone, *arguments) as (terminal, url), trio.open_nursery() as nursery:
        answers: list[str] = []

        async def ask() -> None:
            async with httpx2.AsyncClient(timeout=60) as client:
                response = await client.get(url + path)
                answers.append(f"{response.status_code} {response.text}")

        nursery.start_soon(ask)
        await terminal.wait_shown("(Pdb) ")
        await terminal.type(b"import time; time.sleep(2.5); seen = 'enough'\n")  # longer than its deadline
        looking = await terminal.wait_shown("(Pdb) ")
        await terminal.type(b"c\n")
        await terminal.wait_shown(f"route={path}")

    assert answers == ["200 enough"]
    assert "event loop held" not in looking


async def test_a_save_waits_until_the_prompt_is_left(clone: Clone) -> None:
    async with developing(clone) as (terminal, url), trio.open_nursery() as nursery:

        async def ask(path: str) -> None:
            async with httpx2.AsyncClient(timeout=60) as client:
                await client.get(url + path)

        nursery.start_soon(ask, "/stop")
        await terminal.wait_shown("(Pdb) ")
        clone.answer("second")
        await terminal.type(b"p 6 * 7\n")
        await terminal.wait_shown("42")
        await terminal.wait_shown("(Pdb) ")
        await terminal.type(b"c\n")
        await terminal.wait_shown("reloaded in")


async def test_ctrl_c_at_the_prompt_ends_all_and_leaves_the_terminal_as_it_was(clone: Clone) -> None:
    async with developing(clone) as (terminal, url), trio.open_nursery() as nursery:

        async def ask() -> None:
            async with httpx2.AsyncClient(timeout=60) as client:
                with pytest.raises(httpx2.HTTPError):
                    await client.get(url + "/stop")

        before = terminal.modes()
        nursery.start_soon(ask)
        await terminal.wait_shown("(Pdb) ")
        below = descendants(terminal.process.pid)
        await terminal.type(CTRL_C)

        assert await terminal.wait_end() == 128 + signal.SIGINT
        assert terminal.modes() == before
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]


async def test_ctrl_c_in_a_terminal_drains_and_leaves_nothing(clone: Clone) -> None:
    async with developing(clone) as (terminal, _):
        below = descendants(terminal.process.pid)
        await terminal.type(CTRL_C)

        assert await terminal.wait_end() == 0
        assert terminal.shown.count("stopped") == 1
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]


async def test_a_terminal_that_is_closed_over_make_leaves_nothing(clone: Clone) -> None:
    (clone.path / "run.mk").write_text(f"run:\n\t@exec {' '.join(SERVICE)} dev\n")
    settings = environment(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    under_make = ["make", "-f", "run.mk", "run"]
    with open_terminal(under_make, clone.path, settings | {"PYTHONPATH": str(ROOT)}) as terminal:
        await terminal.wait_shown("is ready on ")
        below = descendants(terminal.process.pid)
        terminal.hang_up()
        with trio.fail_after(PATIENCE):
            while terminal.process.poll() is None:
                await trio.sleep(0.05)

        await wait_gone(below)
