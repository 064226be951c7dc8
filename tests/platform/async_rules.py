"""`python -m tests.platform.async_rules ARGUMENTS`: flake8-async, in half its time.

It looks at a file once for each of its rules, since one may mend what it finds, and each time asks anew where all is.
Here nothing is mended, and where all is stays as it is.
"""

import sys
from collections.abc import Iterator
from typing import Any

import flake8_async  # type: ignore[import-untyped]
from flake8_async.runner import Flake8AsyncRunner_cst  # type: ignore[import-untyped]


class Runner(Flake8AsyncRunner_cst):  # type: ignore[misc]
    """Gives all rules the same tree."""

    def run(self) -> Iterator[Any]:
        assert not self.options.autofix_codes
        tree = flake8_async.cst.MetadataWrapper(self.module, unsafe_skip_copy=True)
        for visitor in (*self.utility_visitors, *self.visitors):
            tree.visit(visitor)
        self.noqas = self.state.noqas
        yield from self.state.problems


if __name__ == "__main__":
    flake8_async.Flake8AsyncRunner_cst = Runner
    sys.exit(flake8_async.main())
