"""How a load run looks at the terminal: bars while it runs, a table at the end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from service.commands.load import Report, percentiles

WIDTH = 40


@contextmanager
def bars(report: Report) -> Iterator[Callable[[Report, float], object]]:
    """Yield what shows how far a run is; on standard error, and nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _report, _seconds: None
        return
    columns = TextColumn("{task.description:<10}"), BarColumn(bar_width=WIDTH), TextColumn("{task.fields[words]}")
    with Progress(*columns, console=Console(stderr=True)) as progress:
        shown = {
            bar.name: progress.add_task(bar.name, total=bar.total or None, visible=bool(bar.total), words="")
            for bar in report.bars(0)
        }

        def show(report: Report, seconds: float) -> None:
            for bar in report.bars(seconds):
                progress.update(shown[bar.name], completed=bar.done, words=bar.words)

        yield show


def text(report: Report) -> str:
    """Return the report for people."""
    lines = ["", f"{'':<18}{'count':>9}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}"]
    for name, values in report.times().items():
        if values:
            cells = "".join(f"{seconds * 1000:>7.1f} ms" for seconds in percentiles(values).values())
            lines.append(f"{name:<18}{len(values):>9,}{cells}")
    return "\n".join([*lines, "", *report.lines()])
