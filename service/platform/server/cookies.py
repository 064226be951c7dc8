"""The cookies of a request: each by itself, as others of the domain may set some of them.

Werkzeug reads them in one go: there half a quote takes those behind it along, up to the next, and blanks take the
square of their number, 16 KiB of them more than a second.
"""

import re

from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.datastructures import MultiDict
from werkzeug.sansio.http import parse_cookie
from werkzeug.utils import cached_property

# Ends with its cookie, and gives nothing back on the way.
_COOKIE = re.compile(r'(?:\A|;)[ \t]*+([^ \t=";]++)[ \t]*+(?:=[ \t]*+([^;]*+))?+(?=;|\Z)')
_ODD = re.compile(r'[ \t"]')


class OwnCookies(BaseRequestWebsocket):
    @cached_property
    def cookies(self) -> MultiDict[str, str]:  # type: ignore[override]  # a property there
        """The cookies, in the order in which they were sent; what is none is left out."""
        sent = ";".join(self.headers.getlist("Cookie"))
        found: list[tuple[str, str]] = []
        for name, given in _COOKIE.findall(sent):
            value = given.rstrip(" \t")
            if _ODD.search(value) is None:
                found.append((name, value))
            elif value.startswith('"'):  # a `;` between quotes is written as \073
                found.extend(parse_cookie(f"{name}={value}").items(multi=True))
        return self.dict_storage_class(found)
