"""What each route declares of itself by a decorator below its path: data on its view, looked for before the start."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class UndeclaredError(Exception):
    """Routes do not say who may use them, or how they are limited, or say what cannot be; a line for each."""


class Declaration[T]:
    """One thing that each route has to say once. `missing` and `twice` are what is said of one that does not."""

    def __init__(self, kind: type[T], *, missing: str, twice: str) -> None:
        self._kind = kind
        self._attribute = f"declared_{kind.__name__}"
        self._missing = missing
        self._twice = twice

    def of(self, view: Any) -> T | None:
        """Return what a view declares, or the class that it was made of; None for nothing."""
        found = getattr(view, self._attribute, None) or getattr(
            getattr(view, "view_class", None), self._attribute, None
        )
        return found if isinstance(found, self._kind) else None

    def put[F: Callable[..., object]](self, view: F, what: T) -> F:
        """Let a view declare it. Raises ValueError for one that has already."""
        if self.of(view) is not None:
            raise ValueError(f"{getattr(view, '__qualname__', view)}: {self._twice}")
        setattr(view, self._attribute, what)
        return view

    def missing(self, routes: Iterable[tuple[str, Any]]) -> Iterator[str]:
        """Yield a line for each of some routes, each a name and its view, that does not declare it."""
        for name, view in routes:
            if self.of(view) is None:
                yield f"{name}: {self._missing}"
