"""A prompt on the development database: .venv/bin/python deploy/console.py psql | python"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from deploy.clone import command  # after the path above


def main() -> None:
    from deploy.prompts import prompt  # here: imports take their time, in which Ctrl-C may come

    prompt()


if __name__ == "__main__":
    command(main, changes=False)
