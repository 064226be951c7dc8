"""What the generator of requests must know of the chat: how a name is made."""

import unicodedata

import schemathesis
from hypothesis import strategies as st

from service.chat.parsing import parse_name
from service.platform.errors import Invalid


def is_name(text: str) -> bool:
    try:
        return bool(parse_name(unicodedata.normalize("NFC", text)))
    except Invalid:
        return False


schemathesis.openapi.format("printable", st.text(min_size=1, max_size=64).filter(is_name))
