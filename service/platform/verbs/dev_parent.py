"""`service dev` with reload: the parent, and what it opens for its children. Imports nothing of the service's own."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trio

from service.platform.reload.colours import is_coloured
from service.platform.reload.parent import Parent
from service.platform.verbs.dev_supplies import Supplies
from service.platform.verbs.program import import_structlog, tell

ROOT = Path(__file__).parents[3]


def run_parent(arguments: Sequence[str], data: Path) -> int:
    """Run `service ARGUMENTS` anew at each save until a signal; return the exit code."""
    with ExitStack() as scope:
        supplies = Supplies(scope, data)
        answers = {"database": answering(supplies.database), "provider": answering(supplies.provider)}

        def welcome(told: dict[str, Any]) -> None:
            supplies.welcome(told["public"], told["management"], reloads=True)

        parent = Parent(arguments, ROOT, answers, tell=tell, on_first=welcome, coloured=is_coloured())
        return trio.run(parent.run)


def answering(supply: Callable[[], str]) -> Callable[[object], tuple[dict[str, str], None]]:
    """Return what answers a child's question: with an address, or with the reason why there is none."""

    def answer(_message: object) -> tuple[dict[str, str], None]:
        import_structlog()  # here: a child is on its way by now
        from service.platform.database import EmbeddedUnavailable
        from service.platform.database.development import DevelopmentDatabaseUnusable
        from service.platform.verbs.dev_identity import ProviderUnavailable  # not what serves: the child does

        try:
            return {"value": supply()}, None
        except (DevelopmentDatabaseUnusable, EmbeddedUnavailable, ProviderUnavailable) as error:
            return {"error": str(error)}, None

    return answer
