"""The tree of tasks when there are thousands of them: one moment's truth, in bounded time and size."""

import json
import time

import trio
import trio.testing

from service.platform.inside.tasks import MOST_TASKS, Node, Scope, task_tree


async def converse(number: int) -> None:
    """Wait as a websocket's task does, a heartbeat beside it; one in a thousand elsewhere."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        if number % 1_000 == 7:
            await trio.Event().wait()
        await trio.sleep_forever()


async def test_two_thousand_conversations_are_two_entries(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(2_000):
            nursery.start_soon(converse, number)
        await trio.testing.wait_all_tasks_blocked()
        began = time.thread_time()
        tree = task_tree()
        text, document = tree.text, json.dumps(tree.document())
        took = time.thread_time() - began
        nursery.cancel_scope.cancel()

    print(f"4,000 tasks: {took * 1000:.0f} ms, {len(text):,} characters")
    assert "converse ×1998" in text
    assert "converse ×2" in text
    assert max(len(text), len(document)) < 10_000
    assert took < 1  # 0.05 s on an idle machine


async def test_beyond_a_number_the_rest_is_only_counted(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(MOST_TASKS + 500):
            nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        text = task_tree().text
        nursery.cancel_scope.cancel()

    assert "more that were not looked at" in text
    assert len(text) < 10_000


def test_a_task_is_shown_with_what_it_waits_for_and_what_is_below_it() -> None:
    below = Node("heartbeat", ("sleep",), "", None, []), Node("receive", (), "", None, [], alike=3)
    node = Node("serve", ("Event.wait",), "GET /hang", 1.23456, [Scope(2.0, True, False)], [[*below]])

    assert list(node.lines()) == [
        "serve  [GET /hang for 1.2 s]",
        "│  at Event.wait",
        "│  (deadline in 2.0 s, shielded)",
        "├─ heartbeat",
        "│     at sleep",
        "└─ receive ×3",
    ]
    document = node.document()
    assert (document["doing"], document["seconds"], document["at"]) == ("GET /hang", 1.235, ["Event.wait"])
    assert document["scopes"] == [{"left": 2.0, "shield": True, "cancelled": False}]
    assert [(child["task"], child["alike"], child["seconds"]) for child in document["nurseries"][0]] == [
        ("heartbeat", 1, None),
        ("receive", 3, None),
    ]
