"""Files that hold a secret: read whole, and never waited for, whatever stands at their path."""

import os
import stat
from pathlib import Path

MOST = 1 << 20  # bytes; no secret is as long, and a file that is was named by mistake
MARK = "\ufeff"


class SecretUnreadable(Exception):
    """There is no secret in the file now; the message says why, without the file's name and what it holds."""


def read_secret(file: Path) -> str:
    """Return what a file holds, without blanks and line ends around it. Raises SecretUnreadable and OSError.

    Only a regular file is read: a pipe would be waited for, and is empty when it was read once.
    """
    try:
        text = _read(file).decode()
    except UnicodeDecodeError:
        raise SecretUnreadable("is not UTF-8") from None
    if text.startswith(MARK):
        raise SecretUnreadable("begins with a byte order mark; save the file without it")
    if "\0" in text:
        raise SecretUnreadable("holds a NUL, which ends a text for libpq and others")
    return text.strip()


def _read(file: Path) -> bytes:
    with open(file, "rb", opener=_open_at_once) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise SecretUnreadable("is no regular file")
        read = opened.read(MOST + 1)
    if len(read) > MOST:
        raise SecretUnreadable(f"is larger than {MOST >> 20} MiB")
    return read


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
