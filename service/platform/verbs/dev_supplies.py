"""What `service dev` brings along: a PostgreSQL server and an identity provider, opened when they are asked for."""

import shlex
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from service.platform.name import TITLE
from service.platform.verbs.program import tell

if TYPE_CHECKING:  # the parent starts a child first, and loads this while the child loads more
    from service.platform.database import Embedded


class Supplies:
    """They are closed with `scope`, each opened once. Enter it on the main thread: the server's life is tied to it."""

    def __init__(self, scope: ExitStack, data: Path) -> None:
        self._scope = scope
        self._data = data
        self._server: Embedded | None = None
        self._issuer: str | None = None

    def database(self) -> str:
        """Return the address of the server on `.data`. Raises DevelopmentDatabaseUnusable and EmbeddedUnavailable."""
        from service.platform.database.development import open_development

        if self._server is None:
            self._server = self._scope.enter_context(open_development(self._data))
        return self._server.url

    def provider(self) -> str:
        """Return the address of a provider at which anybody can sign in. Raises ProviderUnavailable."""
        from service.platform.verbs.dev_identity import open_provider

        if self._issuer is None:
            self._issuer = self._scope.enter_context(open_provider())
        return self._issuer

    def stop(self) -> None:
        """Stop the server now, for a process that ends without closing its scopes."""
        if self._server is not None:
            self._server.stop()

    def welcome(self, public: str, management: str, *, reloads: bool) -> None:
        """Say what to try, once the service is ready."""
        commands = [
            f"curl -s {public}/                or open it in a browser",
            f"curl -s {public}/openapi.json    what else there is",
            f"curl -s {management}/healthz         the operator's side",
        ]
        if self._server is not None:
            commands.append(self._shell(self._server))
        last = "Ctrl-C stops it." if self._server is None else "Ctrl-C stops it, the database included."
        if reloads:
            last = f"It reloads at each save. {last}"
        lines = ["", f"  {TITLE} is ready on {public}", "", *(f"    {one}" for one in commands), "", f"  {last}", ""]
        tell("\n".join(lines))

    def _shell(self, server: "Embedded") -> str:
        from service.platform.database.development import for_psql

        psql = "psql" if which("psql") else str(server.bindir / "psql")
        return f"{shlex.quote(psql)} {shlex.quote(for_psql(server.url))}"
