"""The tree of tasks when there are thousands of them: one moment's truth, in bounded time and size."""

import json
import threading
import time
from collections.abc import Iterator

import trio
import trio.testing

from service.platform.http.activities import Message, RequestActivity, activity
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


async def hang(over: trio.Event) -> None:
    """Wait for a request, shielded within a deadline."""
    activity.set(RequestActivity({"method": "GET", "route": "/hang"}, no_send))
    with trio.move_on_after(30), trio.CancelScope(shield=True):
        await over.wait()


async def no_send(_: Message) -> None: ...


async def test_a_task_says_where_and_for_what_it_waits_and_until_when(autojump_clock: trio.testing.MockClock) -> None:
    over, began = trio.Event(), time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang, over)
        await trio.testing.wait_all_tasks_blocked()
        try:
            tree = task_tree()
        finally:
            over.set()

    [[*_, waits]] = [nodes for nodes in nurseries_of(tree.root) if any(node.name.endswith(".hang") for node in nodes)]
    ours, theirs = waits.where
    assert (ours.split(":")[0], ours.split()[1]) == ("tests/platform/inside/test_tasks.py", "hang")
    assert (theirs.split(":")[0], theirs.split()[1]) == ("trio/_sync.py", "Event.wait")
    assert [str(scope) for scope in waits.scopes] == ["shielded", "deadline in 30.0 s"]
    assert waits.doing == "GET /hang"
    assert waits.seconds is not None
    assert 0 <= waits.seconds <= time.perf_counter() - began


def nurseries_of(node: Node) -> Iterator[list[Node]]:
    for nodes in node.nurseries:
        yield nodes
        for below in nodes:
            yield from nurseries_of(below)


async def test_threads_are_shown_that_work_and_none_that_watches() -> None:
    over = threading.Event()
    threads = [threading.Thread(target=over.wait, name=name) for name in ("watchdog", "a unit of work")]
    for thread in threads:
        thread.start()
    try:
        shown = task_tree().threads
    finally:
        over.set()
        for thread in threads:
            thread.join()

    [(_, where)] = [(name, where) for name, where in shown if name in {"watchdog", "a unit of work"}]
    assert "threading.py:" in where


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
