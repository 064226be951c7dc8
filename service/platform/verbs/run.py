"""The way in. What a container starts is run at once, all else by the command line, which takes 20 ms of a start."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from io import TextIOWrapper

from service.platform.verbs import serving
from service.platform.verbs.program import MakeProgram, Program

AT_ONCE: Mapping[tuple[str, ...], Callable[[Program], None]] = {("serve",): serving.serve, ("work",): serving.work}


def run_program(program: Program | MakeProgram, words: Sequence[str]) -> None:
    """Run the verb that `words` name, and exit.

    A program that is made by a function is made when something needs it: its features import the whole service.
    """

    def make_program() -> Program:
        from service.platform.feature import imported

        return program if isinstance(program, Program) else imported(program)

    make = cache(make_program)
    if (verb := AT_ONCE.get(tuple(words))) is not None:
        verb(make())
        return
    if isinstance(sys.stdout, TextIOWrapper):  # as on standard error: no word of another's may end a verb
        sys.stdout.reconfigure(errors="backslashreplace")
    from service.platform.verbs.command_line import command_line

    command_line(make, words)(list(words), prog_name="service", obj=make)
