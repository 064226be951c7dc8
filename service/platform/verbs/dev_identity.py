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
def development_provider(
    settings: PlatformSettings, origins: Mapping[str, str]
) -> Iterator[tuple[PlatformSettings, dict[str, str]]]:
    """Yield settings that lead to a provider that lives as long as the scope, and the origins to match.

    Raises ProviderUnavailable.
    """
    if settings.auth_issuer is not None:
        raise ProviderUnavailable(f"{variable('auth_issuer')}: is set, and --identity brings a provider of its own")
    if importlib.util.find_spec(PACKAGE) is None:
        raise ProviderUnavailable(f"--identity needs the package {PACKAGE}: use `make run IDENTITY=dev`")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    people = [part for person in PEOPLE for part in ("--user-claims", json.dumps(person))]
    command = [sys.executable, "-m", PACKAGE, "--port", str(port), *people]
    provider = launch(command, output=subprocess.DEVNULL, death=signal.SIGKILL)
    changed = {"auth_issuer": f"http://127.0.0.1:{port}", "auth_audience": CLIENT, "auth_client_id": CLIENT}
    try:
        told = dict.fromkeys(map(variable, changed), "service dev --identity")
        yield settings.model_copy(update=changed), {**origins, **told}
    finally:
        provider.kill()
        provider.wait()
