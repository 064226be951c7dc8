"""What a request costs more that says who asks: CPU of the server, over that of a request for which nobody is asked.

A token that is remembered, over the same request to the same routes with identity off, and over one without a token to
a route for anyone; and a token that is seen for the first time, by its kind of key. In short turns of the two.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import batched
from typing import Any

from bench import clients
from bench.measure import in_turns
from bench.price import Side

TURNS, REQUESTS = 150, 400
COLD_TURNS, COLD = 20, 100  # of new tokens


def get(path: str, token: str = "") -> bytes:
    line = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}\r\n".encode()


@contextmanager
def service() -> Iterator[tuple[Side, Side, dict[str, Any]]]:
    """Yield a service of its own process, the same with identity off, and tokens that the first takes."""
    command = [sys.executable, "-m", "bench.apps.identity", str(COLD_TURNS * COLD)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Side(process.pid, told["port"]), Side(process.pid, told["off"]), told
        finally:
            process.kill()


def compare(name: str, mine: Callable[[], float], base: Callable[[], float], turns: int, most: float = 0) -> None:
    """Print by how much mine costs more than base: the median over pairs of turns, either of which comes first."""
    pairs = list(in_turns(mine, base, turns))
    more = [(theirs / ours - 1) * 100 for theirs, ours in pairs]
    low, median, high = statistics.quantiles(more, n=4)
    wanted = f"at most {most:.0f} %; " if most else ""
    cost = statistics.median(theirs - ours for theirs, ours in pairs)
    print(
        f"{name:<58} {median:+5.1f} %  ({wanted}quartiles {low:+.1f} to {high:+.1f}; {cost:+.0f} µs "
        f"on {statistics.median(ours for _, ours in pairs):.0f} µs)",
        flush=True,
    )


def main() -> None:
    with service() as (side, off, told):
        remembered = get("/closed", told["token"])

        def known() -> float:
            return side.cost(remembered, REQUESTS)

        def unasked() -> float:
            return off.cost(remembered, REQUESTS)

        def plain() -> float:
            return side.cost(get("/open"), REQUESTS)

        for each in (known, unasked, plain) * 3:
            each()
        compare("a request with a remembered token, over identity off", known, unasked, TURNS, 5)
        compare("a request with a remembered token, over an open one", known, plain, TURNS)
        for kind, tokens in told["tokens"].items():
            portions = batched(tokens, COLD, strict=True)

            def new(portions: Iterator[tuple[str, ...]] = portions) -> float:
                these = [get("/closed", token) for token in next(portions)]
                return side.cost_of(lambda: clients.each(side.port, these), COLD)

            compare(f"a request with a new token by {kind}, over an open one", new, plain, COLD_TURNS)
