"""What Quart makes ahead of each request, made when somebody asks for it: most views ask for none of it.

Quart makes a request with headers of its own, an adapter of the URL map, a namespace and a session, and sends six
signals, before a view that wants nothing but its arguments is called: a fifth of a small GET's time. Here `request`,
`g`, `session` and `url_adapter` come into being with their first use, and are then what Quart would have made.

Whoever registered a hook, a signal's receiver or sessions gets Quart's own way, in Quart's order (`is_bare`).
"""

from collections.abc import Callable, MutableMapping
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from quart.ctx import AppContext
from quart.globals import _cv_app
from quart.sessions import SecureCookieSessionInterface, SessionMixin
from quart.signals import (
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
    request_finished,
    request_started,
    request_tearing_down,
)
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter, Rule

from service.platform.failures import forget_frames
from service.platform.server.documents import Document, Json, is_model
from service.platform.server.routing import blueprints_of

if TYPE_CHECKING:
    from service.platform.server.application import Application  # it makes us

_SIGNALS = (
    appcontext_pushed,
    request_started,
    request_finished,
    request_tearing_down,
    appcontext_tearing_down,
    appcontext_popped,
)

_receivers = attrgetter("receivers")


class Context(AppContext):
    """Of one HTTP request."""

    app: "Application"
    _flashes = None
    _websocket = None
    _push_count = 0

    def __init__(
        self,
        app: "Application",
        scope: MutableMapping[str, Any],
        make: Callable[[], Request],
        *,
        documents: bool = False,
    ) -> None:
        """Make nothing yet; `make` is called once, when the request is asked for.

        With `documents` whoever serves takes a Document in place of a response.
        """
        self.app = app
        self.scope = scope
        self.rule: Rule | None = None
        self.view_args: dict[str, Any] = {}
        self.bare = is_bare(app)
        self._documents = documents and self.bare
        self._make = make
        self._unmatched: HTTPException | None = None
        self._cv_token = None
        self._after_request_functions = []
        self._after_websocket_functions = []

    @cached_property
    def g(self) -> Any:  # type: ignore[override]  # an attribute there, as are the next three
        return self.app.app_ctx_globals_class()

    @cached_property
    def _request(self) -> Request:  # type: ignore[override]
        request = self._make()
        self._tell(request)
        return request

    @cached_property
    def _session(self) -> SessionMixin | None:  # type: ignore[override]
        return self.app.session_interface.null_session_class() if self.bare else None  # then it is opened

    @cached_property
    def url_adapter(self) -> MapAdapter | None:  # type: ignore[override]
        try:
            return self.app.create_url_adapter(self._request)
        except HTTPException:  # a Host that is none; the routing says so
            return None

    @property
    def has_request(self) -> bool:
        return True

    @property
    def blueprints(self) -> list[str]:
        return list(blueprints_of(self.rule.endpoint)) if self.rule is not None else []

    @property
    def is_response_unseen(self) -> bool:
        """Whether nobody sees the response before it is sent; the view itself may have asked to."""
        return self.bare and not self._after_request_functions

    @property
    def takes_documents(self) -> bool:
        """Whether a Document may take the place of the response."""
        return self._documents and not self._after_request_functions

    def document(self, result: object) -> Document | None:
        """Return what a view returned as it is sent, if that needs no response."""
        if isinstance(result, Document):
            return result
        if not self.takes_documents or not (type(result) in {dict, list} or is_model(type(result))):
            return None
        provider = self.app.json
        if type(provider) is not Json or not provider.is_usual or "make_response" in vars(self.app):
            return None
        return provider.document(result)

    def copy(self) -> AppContext:  # type: ignore[override]
        return AppContext(self.app, request=self.request, session=self._session)

    def match_request(self) -> None:
        try:
            if self.app.matches_hosts:
                assert self.url_adapter is not None  # noqa: S101  # such an app has one for every Host
                self.rule, parts = self.url_adapter.match(return_rule=True)
                self.view_args = dict(parts)
            else:
                self.rule, self.view_args = self.app.url_map.find(self.scope)  # type: ignore[attr-defined]  # ours
        except HTTPException as error:
            self._unmatched = error
            forget_frames(error)
        if "_request" in vars(self):
            self._tell(self._request)

    @property
    def unmatched(self) -> HTTPException | None:
        """Why no route is for the request, None when one is."""
        if self.rule is None and self._unmatched is None:
            self.match_request()
        return self._unmatched

    def check_matched(self) -> Rule:
        """Return the route. Raises NotFound, MethodNotAllowed, BadHost."""
        if self.rule is None:
            assert self._unmatched is not None  # noqa: S101  # one of the two is there once it is pushed
            raise self._unmatched
        return self.rule

    async def push(self) -> None:
        if not self.bare or self._cv_token is not None:
            await super().push()
            return
        self._push_count += 1
        self._cv_token = _cv_app.set(self)
        if self.rule is None and self._unmatched is None:
            self.match_request()

    async def pop(self, exc: BaseException | None = None) -> None:
        if self._unmatched is not None:
            forget_frames(self._unmatched)
        if not self.bare or self._push_count > 1 or "_request" in vars(self):
            await super().pop(exc)  # among other things it closes the files of a form
            return
        self._push_count -= 1
        assert self._cv_token is not None  # noqa: S101  # who pops has pushed
        _cv_app.reset(self._cv_token)
        self._cv_token = None

    def _tell(self, request: Request) -> None:
        request.url_rule = self.rule  # type: ignore[assignment]  # its map makes rules of its own class
        request.view_args = self.view_args if self.rule is not None else None
        request.routing_exception = self._unmatched


def is_bare(app: "Application") -> bool:
    """Whether nobody wants to be called around the views of `app`, and nothing is kept in a session."""
    if app.secret_key is not None or type(app.session_interface) is not SecureCookieSessionInterface:
        return False
    if any(map(_receivers, _SIGNALS)) or app.teardown_appcontext_funcs:
        return False
    before, after = app.before_request_funcs, app.after_request_funcs
    for functions in (app.url_value_preprocessors, before, after, app.teardown_request_funcs):
        if functions and any(functions.values()):  # Quart leaves empty lists there for each name that it looked up
            return False
    return True
