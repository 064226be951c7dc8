"""`python -m tests.platform.identity.doors`: `service serve` with the routes of world.py."""

from service.platform.process.end import ending
from service.platform.verbs import Program, run_program
from service.settings import Settings
from tests.platform.identity.world import DOORS

if __name__ == "__main__":
    with ending():
        run_program(Program(Settings, [DOORS]), ["serve"])
