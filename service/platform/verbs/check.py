"""`service check`, the doctor: one finding a line, each with what to do about it. Changes nothing."""

import errno
import resource
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import service.platform.verbs.tables  # noqa: F401  whose rights are looked at, also where no feature needs them
from service.platform.errors import DatabaseAway
from service.platform.jobs.opening import OWN
from service.platform.settings import PlatformSettings
from service.platform.verbs.finding import Finding
from service.platform.verbs.where import local_url

OTHER_CONNECTIONS = 2  # a replica's health look and listener
OLDEST = 150000  # PostgreSQL 15, as server_version_num writes it
ITS_OWN = "the service that runs here"
MOST_SKEW = 5.0  # seconds between two clocks before people who compare logs are misled


async def findings(settings: PlatformSettings, *, unknown: Sequence[str], has_jobs: bool) -> list[Finding]:
    """Return every finding, in the order in which an operator would look.

    `unknown` are names that were given and are no setting's; features with jobs take more connections.
    """
    management = await port("management", "SERVICE_MANAGEMENT_BIND", settings.management_bind, running_service)
    runs = management.seen.endswith(ITS_OWN)
    here = [
        Finding("settings", "valid", f"no settings, and ignored: {', '.join(unknown)}" if unknown else ""),
        await port("bind", "SERVICE_BIND", settings.bind, answers_probes if runs else nobody),
        management,
        descriptors(settings),
        *await identity(settings),
    ]
    if settings.database_url is None:
        return [*here, Finding("database", "no address", "set SERVICE_DATABASE_URL, or use `service dev`", failed=True)]
    of_jobs = settings.jobs_concurrency + OWN if has_jobs else 0
    return [*here, *await database(settings, of_jobs)]


async def port(name: str, variable: str, bind: str, whose: Callable[[str], Awaitable[str]]) -> Finding:
    """Look at a listener's address; `whose` says of a URL what of this service answers there, if anything does."""
    from service.platform.server import open_listener

    try:
        with open_listener(bind):
            return Finding(name, f"{bind} is free")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no host name"
        if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
            return Finding(name, f"{bind} cannot be used: {why}", f"choose another {variable}", failed=True)
    if found := await whose(local_url(bind)):
        return Finding(name, f"{bind} is taken by {found}, {ITS_OWN}")
    return Finding(name, f"{bind} is taken", f"choose another {variable}, or end what has it", failed=True)


async def running_service(url: str) -> str:
    """Say which service's management listener answers; nothing when it is none."""
    from service.platform.verbs.inspect import AskError, ask_json

    try:
        info = await ask_json(url, "/info")
        return f"revision {info['revision']}, which is {info['phase']}"
    except (AskError, KeyError):
        return ""


async def nobody(_url: str) -> str:
    return ""


async def answers_probes(url: str) -> str:
    from service.platform.verbs.inspect import AskError, ask_json

    try:
        return "its public listener" if (await ask_json(url, "/livez")).get("status") == "ok" else ""
    except AskError:
        return ""


def descriptors(settings: PlatformSettings) -> Finding:
    _soft, limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # up to the hard one it helps itself
    needed = settings.most_descriptors
    if limit == resource.RLIM_INFINITY:
        return Finding("descriptors", "no limit")
    advice = f"raise it (ulimit -n), or lower SERVICE_MAX_WEBSOCKETS: a full house takes {needed}"
    return Finding("descriptors", f"limit {limit}", advice if limit < needed else "")


async def identity(settings: PlatformSettings) -> list[Finding]:
    if settings.auth_issuer is None:
        return [Finding("identity", "off: everybody is a guest")]
    from service.platform.verbs.check_identity import ask_provider

    return await ask_provider(settings, settings.auth_issuer)


async def database(settings: PlatformSettings, of_jobs: int) -> list[Finding]:
    from service.platform.database.doctor import ask

    direct = [] if settings.database_direct_url is None else [await past_the_pooler(settings)]
    started = time.monotonic()
    try:
        facts = await ask(settings)
    except DatabaseAway as error:
        away = Finding("database", str(error), "is SERVICE_DATABASE_URL right, and the server up?", failed=True)
        return [away, *direct]
    needed = settings.database_connections + OTHER_CONNECTIONS + of_jobs
    old = facts.version_number < OLDEST
    crowded = needed > facts.max_connections
    return [
        Finding(
            "database",
            facts.no_writes or f"answers after {(time.monotonic() - started) * 1000:.0f} ms",
            "writes get 503, and `migrate` waits" if facts.no_writes else "",
        ),
        *direct,
        Finding("version", f"PostgreSQL {facts.version}", "15 or later is needed" if old else "", old),
        Finding(
            "connections",
            f"{needed} for each replica, of {facts.max_connections} that {facts.limited_by}",
            "lower SERVICE_DATABASE_CONNECTIONS or SERVICE_JOBS_CONCURRENCY, or raise that limit" if crowded else "",
            crowded,
        ),
        Finding(
            "rights",
            "may migrate" if facts.may_create else "may not create tables",
            "" if facts.may_create else "fine for `serve`; `migrate` needs a role with CREATE on the schema",
        ),
        *([tables(facts.lacking)] if facts.lacking else []),
        *([rows(facts.filtered)] if facts.filtered else []),
        Finding("schema", facts.schema, "" if facts.served else facts.schema_advice, not facts.served),
        Finding(
            "ceilings",
            f"not set: {', '.join(facts.unlimited)}" if facts.unlimited else "set",
            "set them on the role: ALTER ROLE ... SET ..." if facts.unlimited else "",
        ),
        Finding(
            "session",
            "; ".join(facts.unfit) or "as it should be",
            "ALTER ROLE ... SET ..., or ask who runs the server" if facts.unfit else "",
        ),
        Finding(
            "clock",
            f"{-facts.clock_ahead:+.2f} s to the server's",
            "synchronise the clocks" if abs(facts.clock_ahead) > MOST_SKEW else "",
        ),
    ]


async def past_the_pooler(settings: PlatformSettings) -> Finding:
    from service.platform.database.doctor import ask_directly

    started = time.monotonic()
    try:
        past = await ask_directly(settings)
    except DatabaseAway as error:
        return Finding("direct", str(error), "is SERVICE_DATABASE_DIRECT_URL right, and the server up?", failed=True)
    seen = f"answers after {(time.monotonic() - started) * 1000:.0f} ms, {'past the' if past else 'through a'} pooler"
    advice = "in transaction mode that loses notifications and locks: let SERVICE_DATABASE_DIRECT_URL lead past it"
    return Finding("direct", seen, "" if past else advice)


def rows(filtered: Sequence[str]) -> Finding:
    advice = "others are as if they were not there: ALTER TABLE ... DISABLE ROW LEVEL SECURITY, unless you want that"
    return Finding("rows", f"of {', '.join(filtered)} the role has those alone that a policy lets through", advice)


def tables(lacking: Mapping[str, str]) -> Finding:
    seen = "; ".join(f"no {rights} on {table}" for table, rights in lacking.items())
    return Finding("tables", seen, "GRANT them to the role of SERVICE_DATABASE_URL, unless no feature needs them")
