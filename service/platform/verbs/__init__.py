"""The verbs of `service`: those that run or prepare one, and those that are clients of one that runs.

A feature's own verbs are a typer app called `verbs`; what they share with the platform's is named here.
"""

from service.platform.verbs.program import (
    Program,
    any_database,
    database_settings,
    fail,
    load_or_exit,
    prepare_logs,
    program,
    run_client,
)
from service.platform.verbs.run import run_program
from service.platform.verbs.where import check_token_file, management_url, public_url

__all__ = [
    "Program",
    "any_database",
    "check_token_file",
    "database_settings",
    "fail",
    "load_or_exit",
    "management_url",
    "prepare_logs",
    "program",
    "public_url",
    "run_client",
    "run_program",
]
