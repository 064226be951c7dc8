"""Apps that fail, for Hypercorn's command line: `python -m hypercorn -k trio tests.platform.server.failing:NAME`."""

import trio
from quart_trio import QuartTrio

from tests.platform.server.child import add_routes

good = add_routes(QuartTrio("good"))
never_starts = QuartTrio("never_starts")
half_dead = add_routes(QuartTrio("half_dead"))


@never_starts.before_serving
async def fail() -> None:
    raise RuntimeError("meant")


@half_dead.before_serving
async def start_what_crashes() -> None:
    half_dead.nursery.start_soon(_crash)


@half_dead.after_serving
async def tear_down() -> None:
    print("torn down", flush=True)


async def _crash() -> None:
    await trio.sleep(0.2)
    raise RuntimeError("meant")
