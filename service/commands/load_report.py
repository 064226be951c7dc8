"""How a load run looks at the terminal: bars while it runs, a table at the end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from service.commands.load_plan import Plan, Report, percentiles

WIDTH = 40


@contextmanager
def bars(plan: Plan) -> Iterator[Callable[[Report, float], object]]:
    """Yield what shows how far a run is; on standard error, and nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _report, _seconds: None
        return
    bar = BarColumn(bar_width=WIDTH, complete_style="cyan", finished_style="green")
    columns = TextColumn("{task.description:<10}"), bar, TextColumn("{task.fields[words]}")
    with Progress(*columns, console=Console(stderr=True)) as progress:
        members, time, chat, http = (
            progress.add_task(name, total=total or None, visible=bool(total), words="")
            for name, total in (
                ("members", plan.members),
                ("time", plan.duration),
                ("chat", plan.rate * plan.duration if plan.writers else 0),
                ("http", plan.http * plan.duration),
            )
        )

        def show(report: Report, seconds: float) -> None:
            answered = sum(report.statuses.values())
            chatted = f"{report.acked:,} acked of {report.sent:,} sent, {report.received:,} received"
            progress.update(members, completed=report.joined, words=f"{report.joined:,} of {plan.members:,} there")
            progress.update(time, completed=seconds, words=f"{min(seconds, plan.duration):.0f} of {plan.duration:g} s")
            progress.update(chat, completed=report.acked, words=chatted + _typical(report.ack_times))
            progress.update(http, completed=answered, words=f"{answered:,} answers{_typical(report.http_times)}")

        yield show


def text(report: Report, *, colours: bool = False) -> str:
    """Return the report for people."""
    lines = ["", f"{'':<18}{'count':>9}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}"]
    rows = (("GET", report.http_times), ("send to ack", report.ack_times), ("send to member", report.delivery_times))
    for name, values in rows:
        if values:
            cells = "".join(f"{seconds * 1000:>7.1f} ms" for seconds in percentiles(values).values())
            lines.append(f"{name:<18}{len(values):>9,}{cells}")
    lines.append("")
    if report.statuses:
        counted = ", ".join(f"{count:,} × {status}" for status, count in report.statuses.items())
        lines.append(f"statuses          {counted}")
    if report.plan.members:
        lines.append(
            f"sends             {report.sent:,} sent, {report.acked:,} acked, refused: {_counts(report.refused)}"
        )
        lines.append(f"members           {report.plan.members:,}, reconnected {report.reconnects:,} times")
        lines.append(f"allowed           {report.repeats:,} repeats, {report.told_gaps:,} gaps that were told")
    lines.append(f"violations        {_counts(report.violations)}")
    verdict = "every guarantee was kept" if report.kept else "NOT every guarantee was kept"
    colour = "\x1b[1;32m" if report.kept else "\x1b[1;31m"
    lines += ["", f"{colour}{verdict}\x1b[0m" if colours else verdict]
    return "\n".join(lines)


def _typical(values: list[float]) -> str:
    recent = percentiles(values[-500:])
    return f", p50 {recent['p50'] * 1000:.1f} ms, p99 {recent['p99'] * 1000:.1f} ms" if recent else ""


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counted.items()) or "none"
