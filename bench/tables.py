"""What a benchmark of growth prints: a table in Markdown for each axis, a row for each size, as soon as it is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extent:
    """How far to go: the greatest size, None for each axis's usual one; `brief` repeats little, and tells little."""

    most: int | None = None
    brief: bool = False

    def sizes(self, known: Sequence[int], usual: int) -> Iterator[int]:
        """Yield the sizes from the smallest, which is always one of them, up to `most`, or the usual greatest one."""
        bound = usual if self.most is None else self.most
        yield from (size for size in known if size <= bound or size == known[0])

    def times(self, number: int) -> int:
        """Return how often to repeat what is usually done `number` times."""
        return max(4, number // 50) if self.brief else number


class Table:
    def __init__(self, axis: str, title: str, *columns: str) -> None:
        """Print the head; `axis` is what grows."""
        print(f"\n**{title}**\n\n| {' | '.join((axis, *columns))} |\n|{'---:|' * (len(columns) + 1)}", flush=True)

    def row(self, size: int, *figures: float | str) -> None:
        """Print a size, and what was found for it: numbers in three digits."""
        cells = (f"{size:,}", *(one if isinstance(one, str) else digits(one) for one in figures))
        print(f"| {' | '.join(cells)} |", flush=True)


def digits(number: float) -> str:
    """Return a number as people read it: three digits, or all that are before the point."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"
