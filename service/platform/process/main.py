"""The life of the process, top to bottom; the only place that opens things.

Everything is a scope inside the one before it: what opens first closes last, and any crash ends the process.
From outside in: signals, management listener, database, features, public listener.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import structlog
import trio
from quart import Blueprint

from service.platform.database import Condition, open_database
from service.platform.failures import as_failure
from service.platform.feature import Feature, Resources, jobs_of
from service.platform.http.app import create_app, surround
from service.platform.http.idempotency import open_idempotency
from service.platform.http.identity_routes import create_identity_routes
from service.platform.http.openapi import add_openapi
from service.platform.http.openapi.many import SEAMS as BODY_SEAMS
from service.platform.http.requests import ASGI, HEALTHZ, around
from service.platform.identity import import_identity, open_identity
from service.platform.inside.health import Health, Probe, management_probes, public_probes
from service.platform.inside.health import create_routes as create_health
from service.platform.inside.jobs import create_routes as create_jobs
from service.platform.inside.management import METRICS, Inside
from service.platform.inside.management import create_routes as create_management
from service.platform.inside.readings import show_database, show_lag, show_process, show_server, show_units
from service.platform.inside.tasks import SEAMS as TASK_SEAMS
from service.platform.inside.tasks import task_tree
from service.platform.inside.watchdog import Watchdog
from service.platform.jobs import Jobs, open_jobs
from service.platform.lifecycle import Lifecycle
from service.platform.process.addresses import Urls, announce, bound, check_ready_file, explained, take_place
from service.platform.process.stage import ALONE, Stage
from service.platform.process.start import ECHO, end_at_no_more
from service.platform.seams import check_seams, untried
from service.platform.server import (
    SEAMS,
    TRIED,
    CloseReason,
    RateLimits,
    ServerStatistics,
    Websockets,
    serve,
)
from service.platform.settings import PlatformSettings, traces_wanted
from service.platform.telemetry.logs import LogLevel
from service.platform.telemetry.metrics import Metrics
from service.platform.telemetry.tracing import open_tracing

log = structlog.get_logger(__name__)

# How long a websocket may take over its goodbye after its moment has come: 1 s for what was read, 1 s for the close.
LAST_WORDS = 2.0

# Descriptors that clients leave to operators' probes, to the database and to files.
SPARE = 32

# `serve` with everything that both listeners share.
type Listen = Callable[..., Awaitable[None]]


async def main(
    settings: PlatformSettings,
    features: Sequence[Feature],
    *,
    public: bool = True,
    origins: Mapping[str, str] = {},
    end: Callable[[int], object] = os._exit,
    on_ready: Callable[[Urls], object] = lambda _: None,
    stage: Stage = ALONE,
) -> None:
    """Serve until a signal, then drain, and return; raises what crashed a task, SettingsError for a taken port,

    SeamsError when an installed package is not as the platform needs it, JobsTwice for two jobs of one name.

    Without `public` it opens no feature and serves nobody but operators: it only runs jobs.
    `end` leaves the process at once with an exit code: at a second signal, and when a drain exceeds its bound.
    """
    check_seams([*SEAMS, *BODY_SEAMS, *TASK_SEAMS])
    check_ready_file(settings.ready_file)
    jobs_of(features)  # two of one name are told before anything is opened
    import_identity(settings)
    lifecycle = Lifecycle()
    with (
        heard(stage.ends_at) as signals,
        trio.open_signal_receiver(signal.SIGUSR1) as questions,
        open_tracing(wanted=traces_wanted()) as tracing,
        whole_failures(),
    ):
        metrics = Metrics()
        watchdog = Watchdog(settings.slow_step, show_lag(metrics), trio.lowlevel.current_clock().current_time)
        inside = Inside(metrics, LogLevel(settings.log_level), watchdog, tracing)
        log.info("starting", version=inside.version, revision=settings.revision)
        if strange := untried(TRIED):
            log.warning("packages of versions that were not tried", found=strange, tried=dict(TRIED))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey, signals, lifecycle, settings.drain_bound, end)
            nursery.start_soon(answer, questions)
            nursery.start_soon(inside.level.run)
            nursery.start_soon(inside.watchdog.run)
            await live(settings, features, lifecycle, inside, stage, public=public, origins=origins, on_ready=on_ready)
            nursery.cancel_scope.cancel()
    log.info("stopped")


@contextmanager
def heard(numbers: Sequence[signal.Signals]) -> Iterator[AsyncIterator[int]]:
    """Yield these signals as they come; at the end of this scope there is nothing left that one could end."""
    with trio.open_signal_receiver(*numbers) as signals:
        try:
            yield signals
        finally:
            end_at_no_more()


@contextmanager
def whole_failures() -> Iterator[None]:
    """Let a task that calls `sys.exit` crash the process as any other: it would end it with a code of its own."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise as_failure(group) or group from None


async def answer(questions: AsyncIterator[int]) -> None:
    """At SIGUSR1 write the tree of tasks to the log: also when no listener is left that could be asked."""
    async for _ in questions:
        log.warning("tasks", tree=task_tree().text)


async def obey(signals: AsyncIterator[int], lifecycle: Lifecycle, bound: float, end: Callable[[int], object]) -> None:
    """Drain at the first signal; end the process at the second, or when the drain takes longer than `bound` seconds."""
    first = await anext(signals)
    heard = trio.current_time()
    log.info("draining", signal=signal.Signals(first).name, at_most=bound)
    lifecycle.start_draining()
    with trio.move_on_after(bound):
        async for number in signals:
            if trio.current_time() - heard > ECHO and number != signal.SIGHUP:  # a terminal that goes says it twice
                log.warning("second signal: ending at once", signal=signal.Signals(number).name)
                end(128 + number)  # as PID 1 the default action of a second signal would be ignored
    log.error("the drain exceeded its bound: ending at once", seconds=bound)
    end(1)


async def live(
    settings: PlatformSettings,
    features: Sequence[Feature],
    lifecycle: Lifecycle,
    inside: Inside,
    stage: Stage,
    *,
    public: bool = True,
    origins: Mapping[str, str],
    on_ready: Callable[[Urls], object],
) -> None:
    """Open everything in order, be ready until the drain is over, and close everything in reverse."""
    with (
        bound("management_bind", settings.management_bind, stage) as operators,
        bound("bind", settings.bind, stage) if public else nullcontext() as listener,
    ):
        statistics = ServerStatistics()
        limits = RateLimits(settings.rate_per_address, per_connection=settings.rate_per_connection)
        listen = partial(serve, settings=settings, statistics=statistics, lifecycle=lifecycle, shared=stage.shared)
        take_place(settings, operators, stage)
        units = show_units(inside.metrics, inside.tracing)
        async with (
            open_management(partial(listen, listener=operators)) as operating,
            open_database(settings, on_unit=units) as database,
        ):
            show_process(inside.metrics, lifecycle, inside.watchdog, settings.revision)
            show_database(inside.metrics, database)
            observe = show_server(inside.metrics, statistics, inside.tracing)
            health = Health(settings, lifecycle, database, inside.watchdog)
            probes = management_probes(health)
            parts = [
                create_management(settings, origins, lifecycle, database, inside),
                create_jobs(database),
                create_health(health, probes, in_full=True),
            ]
            operators_app = create_app(parts, settings)
            answer_operators = partial(operating.start, around(operators_app, seldom=(HEALTHZ, METRICS)), probes)
            if not stage.takes_over:
                await answer_operators()
            if not await unless_draining(lifecycle, database.wait_served):
                log.warning("never ready", reason=why_not_served(database.condition))
                return
            ready = partial(announce, settings, lifecycle, operators, on_ready=on_ready)
            run_jobs = partial(open_jobs, database, jobs_of(features), settings, inside.metrics, inside.tracing)
            if listener is None:
                async with run_jobs() as jobs:
                    await work(settings, lifecycle, jobs, ready)
                return
            with explained("bind", settings.bind):
                listener.listen()  # the address may have been taken by another that waited as we did
            resources = Resources(settings, lifecycle, database, inside.metrics, limits)
            async with (
                until_opened(lifecycle),
                open_identity(settings, database, inside.metrics) as identity,
                open_idempotency(database),
                open_features(features, resources) as blueprints,
            ):
                health.add("identity", identity.condition)
                probes = public_probes(health)
                own = [create_identity_routes(identity, database), create_health(health, probes, in_full=False)]
                app = create_app([*blueprints, *own], settings, identity, limits)
                add_openapi(app, settings.auth_issuer)
                served = surround(
                    app, settings, lifecycle=lifecycle, statistics=statistics, limits=limits,
                    observe=observe, tracing=inside.tracing,
                )  # fmt: skip
                async with (
                    run_jobs() as jobs,
                    trio.open_nursery() as ending,  # jobs and requests end side by side
                    open_public(partial(listen, served, listener, probes=probes, spare=SPARE)) as (websockets, closing),
                ):
                    lifecycle.mark_ready()
                    if not lifecycle.opened:
                        await trio.sleep_forever()  # a drain came first, and ends this
                    if stage.takes_over:
                        await answer_operators()
                    await ready(listener)
                    await lifecycle.wait_draining()
                    jobs.stop_claiming()
                    if stage.shared:  # whoever comes now is for the others
                        closing.set()
                        operating.closing.set()
                    await drain(settings, lifecycle, websockets)
                    ending.start_soon(partial(jobs.stop, within=settings.graceful_timeout))


async def work(
    settings: PlatformSettings, lifecycle: Lifecycle, jobs: Jobs, ready: Callable[[], Awaitable[None]]
) -> None:
    """Run jobs until the drain: nobody is routed here, so it begins at once."""
    lifecycle.mark_ready()
    await ready()
    await lifecycle.wait_draining()
    lifecycle.start_leaving()
    await jobs.stop(within=settings.graceful_timeout)


async def unless_draining(lifecycle: Lifecycle, wait: Callable[[], Awaitable[None]]) -> bool:
    """Return True once `wait` has returned, or False as soon as the drain starts."""
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await lifecycle.wait_draining()
            nursery.cancel_scope.cancel()

        nursery.start_soon(give_up)
        await wait()
        nursery.cancel_scope.cancel()
    return not lifecycle.draining


@asynccontextmanager
async def until_opened(lifecycle: Lifecycle) -> AsyncIterator[None]:
    """Give up what is being opened inside as soon as a drain starts: a feature may wait for what never comes."""
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await lifecycle.wait_draining()
            if not lifecycle.opened:
                log.warning("never ready", reason="features were still being opened")
                nursery.cancel_scope.cancel()

        nursery.start_soon(give_up)
        yield
        nursery.cancel_scope.cancel()


def why_not_served(seen: Condition) -> str:
    """Say what was waited for in vain: whoever ended the process, a probe perhaps, may not know."""
    if not seen.reachable:
        return f"the database cannot be reached: {seen.error}"
    return f"the schema is {seen.schema}: at {seen.revision or 'nothing yet'}, this code needs {seen.head}"


@dataclass(frozen=True, slots=True)
class Operating:
    """The operator's listener: `start` lets it answer, `closing` ends that."""

    start: Callable[[ASGI, Mapping[str, Probe]], Awaitable[None]]
    closing: trio.Event


@asynccontextmanager
async def open_management(listen: Listen) -> AsyncIterator[Operating]:
    """Yield the operator's listener; it answers until everything inside this scope is closed."""
    closing = trio.Event()

    async def start(app: ASGI, probes: Mapping[str, Probe]) -> None:
        await nursery.start(partial(listen, app, probes=probes, shutdown=closing.wait))

    async with trio.open_nursery() as nursery:
        yield Operating(start, closing)
        closing.set()


@asynccontextmanager
async def open_public(listen: Listen) -> AsyncIterator[tuple[Websockets, trio.Event]]:
    """Serve inside this scope; at its end no more is accepted and requests in flight end, at a crash all at once.

    The event, once set, is that end for requests alone: websockets stay until the drain has sent them away.
    """
    websockets, closing = Websockets(), trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(listen, websockets=websockets, shutdown=closing.wait))
        try:
            yield websockets, closing
        except BaseException:
            with trio.move_on_after(1, shield=True):
                await websockets.close_all(CloseReason.INTERNAL_ERROR)
            raise
        closing.set()


@asynccontextmanager
async def open_features(features: Sequence[Feature], resources: Resources) -> AsyncIterator[list[Blueprint]]:
    """Open the features in order, and close them in reverse."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(feature.opened(resources)) for feature in features]


async def drain(settings: PlatformSettings, lifecycle: Lifecycle, websockets: Websockets) -> None:
    """Let routers take notice, then send the websockets away; requests in flight end as the listener closes."""
    await trio.sleep(settings.drain_delay)
    lifecycle.start_leaving()
    log.info("leaving", websockets=websockets.count)
    with trio.move_on_after(settings.drain_spread + LAST_WORDS):
        await websockets.wait_empty()
    await websockets.close_all(CloseReason.SERVICE_RESTART)
