import trio
from trio.testing import wait_all_tasks_blocked

from service.platform.lifecycle import Lifecycle, Phase


def test_phases_only_move_forward() -> None:
    lifecycle = Lifecycle()
    lifecycle.start_leaving()
    lifecycle.mark_ready()
    lifecycle.start_draining()

    assert lifecycle.phase is Phase.LEAVING
    assert lifecycle.draining
    assert not lifecycle.ready
    assert not lifecycle.opened


def test_ready_comes_once_and_ends_with_the_drain() -> None:
    lifecycle, seen = Lifecycle(), []
    moves = [lifecycle.mark_ready, lifecycle.start_draining, lifecycle.mark_ready]
    for move in moves:
        move()
        seen.append((lifecycle.ready, lifecycle.opened, lifecycle.draining, lifecycle.leaving))

    assert seen == [(True, True, False, False), (False, True, True, False), (False, True, True, False)]


async def test_those_who_wait_are_woken_by_their_phase_only() -> None:
    lifecycle, woken = Lifecycle(), []

    async def wait(name: str) -> None:
        await (lifecycle.wait_draining() if name == "draining" else lifecycle.wait_leaving())
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "draining")
        nursery.start_soon(wait, "leaving")
        await wait_all_tasks_blocked()
        lifecycle.start_draining()
        await wait_all_tasks_blocked()

        assert woken == ["draining"]
        lifecycle.start_leaving()
    assert woken == ["draining", "leaving"]
