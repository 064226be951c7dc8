"""What the commands of a clone's life share: they refuse in one sentence, and only where git can undo them."""

import atexit
import fcntl
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE_DOCS = Path("service/platform/docs")
OWN = ("README.md", "SECURITY.md", "CHANGELOG.md", "DECISIONS.md")
"""Pages that become the clone's own with its first rename; the template's then lie in TEMPLATE_DOCS."""


OF_ANOTHER_REPOSITORY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_PREFIX",
)
"""What a hook of git's sets, and leads git to a repository wherever it is run; the Makefile leaves them out as well."""


AS_TEXT: Mapping[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "surrogateescape"}
"""How programs are run: git has a file's name, or what is in it, also where that is no text."""

RESOLVING = ("UV_EXCLUDE_NEWER", "UV_RESOLUTION", "UV_PRERELEASE", "UV_FORK_STRATEGY")
"""What a user may want of what he resolves himself, and uv.lock was made without, unless it says so in `[options]`."""

_unsaid: list[OSError] = []
_interrupted: list[int] = []


class Refused(Exception):
    """Why nothing was changed."""


class Stopped(Refused):
    """Why what was begun could not go on, and what to do then."""


def command(work: Callable[[], None], *, changes: bool = True, alone: bool = True) -> None:
    """Run a command; a refusal is one sentence and exit code 1, and so is Ctrl-C, SIGTERM or a terminal that goes.

    Some never change the clone, and what others call while they do is not `alone`. What cannot be said, as on a full
    disk or to a reader that has left, ends nothing: what was begun is done whole, and the exit code is 1 then too.
    """
    open_standard_streams()
    end_as_at_ctrl_c()
    gc.set_threshold(400_000, 10, 10)  # what is imported is no garbage, and each look goes through all of it
    atexit.register(gc.freeze)  # nor at the end, which looks once more
    for name in OF_ANOTHER_REPOSITORY:
        os.environ.pop(name, None)
    try:
        if changes and alone:
            be_alone()
        work()
    except Stopped as stopped:
        sys.exit(str(stopped))
    except Refused as refused:
        sys.exit(f"nothing was changed: {refused}" if changes else str(refused))
    except (KeyboardInterrupt, Exception) as error:
        if _interrupted:
            sys.exit("interrupted: `git status` says what was changed until then" if changes else "interrupted")
        if not isinstance(error, OSError):
            raise
        # Such as a full disk, or a folder that may not be written to.
        sys.exit(f"{error}: `git status` says what was changed until then" if changes else str(error))
    if _unsaid:
        sys.exit(f"done, but the output cannot be written: {_unsaid[0].strerror}")


def open_standard_streams() -> None:
    """Open what is closed of standard input, output and error, of which Python then has none, on /dev/null."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)  # children have it as well
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  for as long as the process lives
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is: no name of a file ends a command


def end_as_at_ctrl_c() -> None:
    """Let SIGTERM, and the end of the terminal, take back what is half made, as Ctrl-C does; under nohup it stays."""

    def interrupt(number: int, _: FrameType | None) -> None:
        _interrupted.append(number)  # as what is imported may make another error of the exception
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
            signal.signal(number, interrupt)


def be_alone() -> None:
    """Keep other commands out of this clone until the process ends. Raises Refused where one is at work."""
    try:
        fcntl.flock(os.open(ROOT, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Refused("another command is changing this clone: wait until it has ended") from error


def template_page(name: str, root: Path = ROOT) -> Path:
    """Return where the template's own page is: at the top, or in TEMPLATE_DOCS once the clone has a name of its own."""
    kept = root / TEMPLATE_DOCS / name
    return kept if kept.exists() else root / name


def need_clean_clone() -> None:
    need_clone()
    # Whatever the user wants git to show him: what git does not know, it cannot bring back.
    if changed := run("git", "status", "--porcelain", "--untracked-files=normal").rstrip():
        raise Refused(f"commit or stash first, so that it can be undone; git status says\n{changed}")


def need_clone() -> None:
    """Refuse where git does not know this folder, as a repository or as a folder of a larger one."""
    if (ROOT / ".git").exists():
        return
    if not any((folder / ".git").exists() for folder in ROOT.parents):
        raise Refused("this is no git clone, so it could not be undone; `git init` and a first commit make it one")
    if not run("git", "ls-files", "--", "pyproject.toml"):  # one of which git mistrusts the owner is told in its words
        raise Refused(
            "the repository around this folder has nothing of it, so it could not be undone; "
            "commit it there, or `git init` and a first commit make it one of its own"
        )


def tracked() -> list[str]:
    """Return the files that git knows and that are there."""
    need_clone()
    return [name for name in run("git", "ls-files", "-z").split("\0") if name and (ROOT / name).is_file()]


def project_name(root: Path = ROOT) -> str:
    found = re.search(r'^name = "([^"]+)"$', (root / "pyproject.toml").read_text(), re.MULTILINE)
    if found is None:
        raise Refused("pyproject.toml names no project")
    return found[1]


def run(*command: str) -> str:
    done = attempt(*command)
    if done.returncode:
        raise Refused(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def attempt(
    *command: str, environment: Mapping[str, str] = os.environ, directory: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is. Raises Refused when there is no such program."""
    try:
        return subprocess.run(command, cwd=directory, env=environment, check=False, **AS_TEXT)
    except FileNotFoundError as error:
        raise Refused(f"{command[0]} is not here: install it") from error


def ask(*arguments: str) -> str:
    """Return what git says, without the blanks around it; "" where it knows nothing."""
    done = attempt("git", *arguments)
    return "" if done.returncode else done.stdout.strip()


def rewrite(path: Path, text: str) -> None:
    """Replace a file's text, or on a full disk leave it as it is: what is in it may be nowhere else yet."""
    if path.exists() and path.read_text() == text:
        return
    path = path.resolve()  # a link stays one
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text)
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def follow_up(*command: str, environment: Mapping[str, str] = os.environ) -> None:
    """Run what mends generated files after a change. What fails is told, and the change stands."""
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, **AS_TEXT)
    if done.returncode:
        failed = " ".join(command)
        say(f"done, but `{failed}` failed; mend this and run it again:\n{done.stdout}{done.stderr}")


def lock() -> None:
    """Bring uv.lock up to date, from what is here or else from the package index.

    Also where packages are only left out: of the others uv has seen no more than the lock file where it has only
    installed. With this Python: the first on the PATH may be a shim of pyenv's that leads nowhere.
    """
    uv = shutil.which("uv") or shutil.which(ROOT / ".uv" / "bin" / "uv")
    if uv is None:
        say("uv is not here: bring uv.lock up to date with `uv lock`")
        return
    locking = (uv, "lock", "--quiet", "--python", sys.executable)
    environment = _locked_before(uv)
    if attempt(*locking, "--offline", environment=environment).returncode:
        follow_up(*locking, environment=environment)


def _locked_before(uv: str) -> Mapping[str, str]:
    """Return the environment in which uv locks as it did, whatever else this user wants, as no package of last week.

    uv writes that into the file, which is then out of date for all who do not want it. deploy/setup.sh has the same.
    """
    file = ROOT / "uv.lock"
    if file.exists() and "\n[options]\n" in file.read_text(encoding="utf-8"):
        return os.environ
    environment = {name: value for name, value in os.environ.items() if name not in RESOLVING}
    if re.match(r"uv 0\.(\d|10|11)\.", attempt(uv, "--version").stdout):  # these cannot be told to leave it
        return environment
    return environment | {"UV_EXCLUDE_NEWER": "false"}


def answer(question: str) -> str:
    """Return what the person at the terminal says, without blanks around it; "" for Ctrl-D, or where nobody is."""
    if not sys.stdin.isatty():
        return ""
    try:
        return input(question).strip()
    except EOFError:
        say("")  # what is said next begins a line
        return ""


def say(line: str) -> None:
    """Print a line. What cannot be printed is told at the end of the command."""
    try:
        print(line, flush=True)  # noqa: T201  a program for the terminal
    except OSError as error:
        _unsaid.append(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it, the interpreter writes
