"""How a load run looks at the terminal: bars while it runs, a table at the end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from service.platform.client.load_plan import Report, percentiles

WIDTH = 40


@contextmanager
def bars(report: Report) -> Iterator[Callable[[Report, float], object]]:
    """Yield what shows how far a run is; on standard error, and nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _report, _seconds: None
        return
    bar_column = BarColumn(bar_width=WIDTH, complete_style="cyan", finished_style="green")
    columns = TextColumn("{task.description:<10}"), bar_column, TextColumn("{task.fields[words]}")
    with Progress(*columns, console=Console(stderr=True)) as progress:
        shown = {
            bar.name: progress.add_task(bar.name, total=bar.total or None, visible=bool(bar.total), words="")
            for bar in report.bars(0)
        }

        def show(report: Report, seconds: float) -> None:
            for bar in report.bars(seconds):
                progress.update(shown[bar.name], completed=bar.done, words=bar.words)

        yield show


def text(report: Report, *, colours: bool = False) -> str:
    """Return the report for people."""
    lines = ["", f"{'':<18}{'count':>9}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}"]
    for name, values in report.times().items():
        if values:
            cells = "".join(f"{seconds * 1000:>7.1f} ms" for seconds in percentiles(values).values())
            lines.append(f"{name:<18}{len(values):>9,}{cells}")
    verdict = "every guarantee was kept" if report.kept else "NOT every guarantee was kept"
    colour = "\x1b[1;32m" if report.kept else "\x1b[1;31m"
    lines += ["", *report.lines(), "", f"{colour}{verdict}\x1b[0m" if colours else verdict]
    return "\n".join(lines)
