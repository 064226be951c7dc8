"""A body that comes in ever so many pieces takes the memory of its bytes, and not that of each piece."""

import tracemalloc
from typing import Any

import trio

from service.platform.server.body import Body

PIECES = 20_000


async def test_a_body_in_tiny_pieces_is_kept_as_one() -> None:
    """1 MiB in chunks of two bytes, which a stranger may send by each of his connections, was kept in thirty."""
    left, kept = PIECES, dict.fromkeys((PIECES // 2, 0), 0)

    async def receive() -> Any:
        nonlocal left
        left -= 1
        await trio.lowlevel.checkpoint()
        if left in kept:
            kept[left] = tracemalloc.get_traced_memory()[0]
        return {"type": "http.request", "body": left.to_bytes(2), "more_body": left > 0}

    body = Body(None, None)
    body.pull_from(receive, patience=60)
    tracemalloc.start()
    whole = await body
    tracemalloc.stop()

    assert len(whole) == 2 * PIECES
    assert kept[0] - kept[PIECES // 2] < 10 * PIECES  # it is one for the bytes of half the pieces
