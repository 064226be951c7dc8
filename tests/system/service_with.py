"""`python -m tests.system.service_with NAME...`: `service serve`, but with features of tests/platform/features.py."""

import sys

from service.platform.process.end import ending
from service.platform.verbs import Program, run_program
from service.settings import Settings
from tests.platform import features

if __name__ == "__main__":
    with ending():
        run_program(Program(Settings, [getattr(features, name) for name in sys.argv[1:]]), ["serve"])
