"""The command line: the platform's verbs, then each feature's. `service` and `python -m service` are the same."""

from service.platform.process.end import ending
from service.platform.process.start import end_at_signals, open_standard_streams


def run() -> None:
    end_at_signals()
    open_standard_streams()
    with ending():
        from service.features import FEATURES  # here: these imports take most of a second, in which a signal may come
        from service.platform.verbs import Program, run_program
        from service.settings import Settings

        run_program(Program(Settings, FEATURES))


if __name__ == "__main__":
    run()
