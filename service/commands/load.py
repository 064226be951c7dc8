"""`service load`: clients that ask, over real sockets, at a given pace. It knows the service by its wire alone."""

import math
from collections.abc import Callable
from urllib.parse import urlsplit

import trio

from service.commands.load_http import Asking
from service.commands.load_plan import Report


class Run:
    """One run: `start` begins what lasts for the plan's duration."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.started = math.inf
        self._host = report.plan.host or urlsplit(report.plan.url).netloc

    # sample begins
    async def prepare(self, nursery: trio.Nursery) -> None:
        """Begin what lasts until all is settled."""

    async def settle(self) -> None:
        """Wait for what is on its way when the time is over."""

    # sample ends
    def start(self, nursery: trio.Nursery) -> None:
        if self.report.plan.http:
            nursery.start_soon(Asking(self.report.plan, self.report, self._host).run, self.started)


async def run_load(run: Run, show: Callable[[Report, float], object]) -> None:
    """Load for the plan's duration; `show` is called a few times a second."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell, run, show)
        await run.prepare(nursery)  # sample
        run.started = trio.current_time()
        async with trio.open_nursery() as work:
            run.start(work)
        await run.settle()  # sample
        nursery.cancel_scope.cancel()
    show(run.report, run.report.plan.duration)


async def _tell(run: Run, show: Callable[[Report, float], object]) -> None:
    while True:
        show(run.report, max(0.0, trio.current_time() - run.started))
        await trio.sleep(0.2)
