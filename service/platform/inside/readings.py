"""Which of the plain numbers that the parts count anyway are shown as which metrics."""

import platform
from collections.abc import Callable, Mapping

import trio

from service.platform.database import Database, Outcome
from service.platform.http.requests import RequestObserver
from service.platform.inside.watchdog import Watchdog
from service.platform.lifecycle import Lifecycle, Phase
from service.platform.name import version as installed_version
from service.platform.server import FULL_HOUSE, NO_DESCRIPTORS, ServerStatistics
from service.platform.telemetry.exported import Counts
from service.platform.telemetry.metrics import Metrics
from service.platform.telemetry.tracing import Tracing
from service.platform.telemetry.unheld import lost_lines

_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


def show_process(metrics: Metrics, lifecycle: Lifecycle, watchdog: Watchdog, revision: str) -> None:
    version = installed_version()
    facts = {"version": version, "revision": revision, "python": platform.python_version()}
    metrics.info("service_info", "What runs.", facts)
    metrics.gauge("service_phase", "1 for the phase that the process is in.", lambda: _phases(lifecycle), label="phase")
    metrics.gauge("trio_tasks", "Tasks that live.", lambda: trio.lowlevel.current_statistics().tasks_living)
    metrics.counter("event_loop_holds_total", "Steps that held the event loop too long.", lambda: watchdog.holds)
    metrics.counter("log_lines_lost_total", "Log lines dropped, as standard error took no more.", lost_lines)


def show_lag(metrics: Metrics) -> Callable[[float], None]:
    """Return what is told how late the event loop came."""
    return metrics.histogram(
        "event_loop_lag_seconds", "How late the event loop came to a task that was due.", buckets=_LAG_BUCKETS
    ).observe


def show_server(metrics: Metrics, seen: ServerStatistics, tracing: Tracing | None = None) -> RequestObserver:
    """Return what is told about each request."""
    metrics.gauge("http_server_active_requests", "Requests that are being answered.", lambda: seen.requests_in_flight)
    metrics.gauge("server_connections", "Open sockets.", lambda: seen.connections_open)
    metrics.gauge("websocket_connections", "Open websockets.", lambda: seen.websockets_open)
    metrics.counter("websocket_closes_total", "Websockets closed.", lambda: seen.closes, label="code")
    metrics.counter(
        "server_refused_total",
        "Refused ahead of the framework.",
        lambda: {FULL_HOUSE: 0, **seen.refused},  # an alert counts it: a series that begins at 1 is no rise
        label="reason",
    )
    metrics.counter(
        "server_dropped_total", "Connections let go.", lambda: {NO_DESCRIPTORS: 0, **seen.dropped}, label="reason"
    )
    metrics.counter("server_write_timeouts_total", "Peers that did not read in time.", lambda: seen.write_timeouts)
    metrics.counter(
        "server_connection_errors_total",
        "Failures that one connection's barrier held, and those that left the framework.",
        lambda: {**seen.connection_errors, "application": seen.application_errors},
        label="kind",
    )
    if tracing is not None:
        _show_tracing(metrics, tracing.counts)
    durations = metrics.histogram(
        "http_server_request_duration_seconds",
        "From a request's headers to the end of its response, or to the first part of one in parts.",
        "http_request_method",
        "http_route",
        "http_response_status_code",
    )

    def observe(method: str, route: str, status: str, seconds: float) -> None:
        durations.observe(seconds, method, route, status)

    return observe


def show_database(metrics: Metrics, database: Database) -> None:
    def connections() -> Mapping[str, float]:
        now = database.statistics()
        return {"in_use": now.connections_in_use, "idle": now.connections_idle, "limit": now.connections_limit}

    def ended() -> Mapping[str, float]:
        now = database.statistics()
        return {"cut": now.lines_cut, "replaced": now.lines_replaced}

    metrics.gauge("database_up", "1 when the last look reached PostgreSQL.", lambda: database.condition.reachable)
    metrics.gauge("database_schema_served", "1 when the schema is one we serve.", lambda: database.condition.served)
    metrics.gauge("database_standby", "1 when it takes no writes.", lambda: database.condition.standby)
    metrics.gauge(
        "background_failing", "Tasks kept from work, by the database or a peer.", lambda: len(database.failing_tasks)
    )
    metrics.counter(
        "background_failures_total",
        "Errors that background tasks met, by class of SQLSTATE or kind.",
        lambda: database.statistics().background_failures,
        label="kind",
    )
    metrics.counter("database_cancel_requests_total", "Cancels asked for.", lambda: database.statistics().cancels_sent)
    metrics.counter("database_connections_ended_total", "Connections given up, by why.", ended, label="why")
    metrics.gauge("database_connections", "Pooled connections.", connections, label="state")
    metrics.gauge("database_waiting", "Units that wait for a connection.", lambda: database.statistics().waiting)
    metrics.counter("database_busy_total", "Units refused, as all were in use.", lambda: database.statistics().busy)
    metrics.counter("database_retries_total", "Units run again.", lambda: database.statistics().retried)
    metrics.counter(
        "database_cancels_total",
        "Units cancelled while they ran, by what became of them.",
        lambda: database.statistics().cancels,
        label="outcome",
    )


def show_units(metrics: Metrics, tracing: Tracing | None = None) -> Callable[[str, Outcome, float], None]:
    """Return what is told about each unit of work."""
    units = metrics.histogram("database_unit_seconds", "Units, without the wait.", "unit", "outcome")

    def observe(unit: str, outcome: Outcome, seconds: float) -> None:
        units.observe(seconds, unit, outcome)
        if tracing is not None:
            tracing.unit(unit, outcome, seconds)

    return observe


def _show_tracing(metrics: Metrics, counts: Counts) -> None:
    metrics.counter(
        "tracing_spans_total",
        "Sampled spans by what became of them: given to the collector, or given up.",
        lambda: {"exported": counts.exported, "failed": counts.failed},
        label="outcome",
    )


def _phases(lifecycle: Lifecycle) -> Mapping[str, float]:
    return {phase: float(phase is lifecycle.phase) for phase in Phase}
