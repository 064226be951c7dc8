"""What a container starts: `serve` and `work`, and under both, as under `dev`, the process itself."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from service.platform.verbs.program import CRASHED, WRONG, Program, fail, read_database_settings, tell

if TYPE_CHECKING:
    from trio.abc import Clock

    from service.platform.feature import Feature
    from service.platform.process.addresses import Urls
    from service.platform.process.stage import Stage
    from service.platform.settings import PlatformSettings


def serve(program: Program) -> None:
    """Run a service until it is told to end."""
    settings, origins = read_database_settings(program)
    process(program.features, settings, origins)


def work(program: Program) -> None:
    """Run its jobs alone."""
    settings, origins = read_database_settings(program)
    if settings.jobs_concurrency == 0:
        fail("SERVICE_JOBS_CONCURRENCY: must be 1 or more for a process that only runs jobs; it is 0", WRONG)
    process(program.features, settings, origins, public=False)


def log_crash(error: BaseException) -> None:
    import structlog

    structlog.get_logger(__name__).critical("crashed", exc_info=error)


def process(
    features: "Sequence[Feature]",
    settings: "PlatformSettings",
    origins: Mapping[str, str],
    *,
    public: bool = True,
    end: Callable[[int], object] = os._exit,
    on_ready: "Callable[[Urls], object]" = lambda _: None,
    stage: "Stage | None" = None,
    clock: "Clock | None" = None,
    failed: Callable[[BaseException], object] = log_crash,
) -> None:
    """Run main to its end; exits with 2 for what the operator can mend, with 1 for a crash, which `failed` is told."""
    import trio

    from service.platform.database import MigrationsWrong
    from service.platform.declarations import UndeclaredError
    from service.platform.errors import leaves
    from service.platform.feature import import_all
    from service.platform.jobs import JobsTwice
    from service.platform.process.one_cpu import one_cpu
    from service.platform.process.start import collect_as_usual, widen_descriptors, without_http2
    from service.platform.seams import SeamsError
    from service.platform.settings import SettingsError
    from service.platform.telemetry.logs import wait_for_no_reader

    with without_http2():
        from service.platform.process.main import main
        from service.platform.process.stage import ALONE

    code = 0
    wait_for_no_reader()
    import_all(features)  # ahead of the loop, in which it would be a slow step
    collect_as_usual()
    widen_descriptors(settings.most_descriptors)
    try:
        with one_cpu() if settings.one_cpu else nullcontext():
            run = partial(main, settings, features, public=public, origins=origins, end=end, on_ready=on_ready)
            trio.run(partial(run, stage=stage or ALONE), clock=clock)
    except* (SettingsError, SeamsError, UndeclaredError) as group:
        code = WRONG
        tell("\n".join(map(str, leaves(group))), err=True)
    except* (MigrationsWrong, JobsTwice) as group:
        code = CRASHED
        tell("\n".join(map(str, leaves(group))), err=True)
    except* Exception as group:
        code = CRASHED
        failed(group)
    if code:  # not in the clauses: where two of them have something to tell, two exits would be a group, which is none
        sys.exit(code)
