"""`service load`: clients that ask, over real sockets, at a given pace. It knows the service by its wire alone."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import trio

from service.platform.client.http import FAILURES, HttpClient
from service.platform.client.load_plan import Plan, Report
from service.platform.client.stream import CONNECT_LIMIT, open_stream

if TYPE_CHECKING:
    from service.platform.feature import Feature


async def find_listening(plan: Plan) -> None:
    """Raise OSError or trio.TooSlowError where nobody listens, or says a thing: later on each part waits for that."""
    try:
        with trio.fail_after(CONNECT_LIMIT):
            async with open_stream(plan.url) as stream:
                with suppress(*FAILURES):  # any answer will do: what it is worth is for each part to judge
                    await HttpClient(stream, plan.sent_host).ask("/livez")
    except trio.TooSlowError:
        raise trio.TooSlowError(f"nothing came within {CONNECT_LIMIT:g} s") from None


async def run_load(report: Report, show: Callable[[Report, float], object]) -> None:
    """Run all parts for the plan's duration; `show` is called a few times a second with the seconds that passed."""
    parts, started = report.parts, float("inf")

    async def tell() -> None:
        while True:
            show(report, max(0.0, trio.current_time() - started))
            await trio.sleep(0.2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        for part in parts:
            await part.prepare(nursery)
        started = trio.current_time()
        async with trio.open_nursery() as work:
            for part in parts:
                part.start(work, started)
        for part in parts:
            await part.settle()
        nursery.cancel_scope.cancel()
    show(report, report.plan.duration)


def feature_loads(features: "Sequence[Feature]") -> list[Any]:
    """Return the load modules that features bring, imported."""
    return [import_module(feature.load) for feature in features if feature.load is not None]
