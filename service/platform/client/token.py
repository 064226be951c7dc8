"""The file from which a client takes its access token: read for each connection, as somebody renews it."""

import re
from pathlib import Path

_TOKEN = re.compile(rb"[!-~]*")  # what a header may hold without a blank; RFC 6750 allows less


class TokenFileError(OSError):
    """The file holds something else. It may be in the middle of being written: as good as one that cannot be read."""


def read_token(file: Path | None) -> str:
    """Return what is to be sent now; nothing without a file. Raises OSError, TokenFileError included."""
    if file is None:
        return ""
    token = file.read_bytes().strip()
    if not _TOKEN.fullmatch(token):
        raise TokenFileError(f"{file}: must hold one access token, and nothing else")
    return token.decode()
