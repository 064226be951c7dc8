"""`service load`: clients that ask, over real sockets, at a given pace. It knows the service by its wire alone."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import trio

from service.platform.client.load_plan import Plan, Report
from service.platform.client.stream import open_stream

if TYPE_CHECKING:
    from service.platform.feature import Feature


async def find_listening(plan: Plan) -> None:
    """Raise OSError or trio.TooSlowError where nobody listens: later on each part waits for whoever comes back."""
    async with open_stream(plan.url):
        pass


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
