"""The command line: the platform's verbs, then each feature's. `service` and `python -m service` are the same."""

import sys
from typing import TYPE_CHECKING

from service.platform.process.end import ending
from service.platform.process.start import (
    collect_seldom,
    end_at_signals,
    import_at_first_use,
    open_standard_streams,
)

if TYPE_CHECKING:
    from service.platform.verbs import Program


def run() -> None:
    end_at_signals()
    collect_seldom()
    open_standard_streams()
    import_at_first_use()
    with ending():
        from service.platform.verbs import run_program  # here: imports take their time, in which a signal may come

        run_program(this_program, sys.argv[1:])


def this_program() -> "Program":
    """Return what the verbs are verbs of; only those that serve, or belong to a feature, need it."""
    from service.features import FEATURES
    from service.platform.verbs import Program

    return Program("service.settings:Settings", FEATURES)


if __name__ == "__main__":
    run()
