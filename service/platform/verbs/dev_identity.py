"""`service dev --identity`: an identity provider beside the service, so that signing in can be tried with no account.

It lets everybody in under any name: it is for one's own machine, and ends with the service.
"""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from service.platform.database.launch import launch
from service.platform.settings import PlatformSettings, variable

PACKAGE = "oidc_provider_mock"
CLIENT = "development"
PEOPLE = ({"sub": "ada", "name": "Ada Lovelace"}, {"sub": "grace", "name": "Grace Hopper"})


class ProviderUnavailable(Exception):
    """No identity provider can run here; the message says what to do."""


@contextmanager
def open_provider() -> Iterator[str]:
    """Yield the address of a provider that lives as long as the scope. Raises ProviderUnavailable."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise ProviderUnavailable(f"--identity needs the package {PACKAGE}: use `make run IDENTITY=dev`")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    people = [part for person in PEOPLE for part in ("--user-claims", json.dumps(person))]
    command = [sys.executable, "-m", PACKAGE, "--port", str(port), *people]
    provider = launch(command, output=subprocess.DEVNULL, death=signal.SIGKILL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        provider.kill()
        provider.wait()


def refuse_another(settings: PlatformSettings) -> None:
    """Raise ProviderUnavailable when the settings name a provider already."""
    if settings.auth_issuer is not None:
        raise ProviderUnavailable(f"{variable('auth_issuer')}: is set, and --identity brings a provider of its own")


def signing_in_at(
    issuer: str, settings: PlatformSettings, origins: Mapping[str, str]
) -> tuple[PlatformSettings, dict[str, str]]:
    """Return settings that lead to such a provider, and the origins to match."""
    changed = {"auth_issuer": issuer, "auth_audience": CLIENT, "auth_client_id": CLIENT}
    told = dict.fromkeys(map(variable, changed), "service dev --identity")
    return settings.model_copy(update=changed), {**origins, **told}
