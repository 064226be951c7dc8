"""How long a start takes: from exec to the first answer of /readyz that says yes, beside the same of FastAPI."""

import http.client
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.measure import cpu_seconds, in_turns, show
from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings, SecretURL
from service.platform.testing.own_server import free_port

BIN = Path(sys.executable).parent
ROUNDS = 7
MOST = 1.2
POLL = 0.005  # seconds between two questions; of each side the same

type Started = tuple[float, float]  # seconds, and of processor time


def main(url: str) -> None:
    migrate(PlatformSettings(database_url=SecretURL(url)))

    def ours() -> Started:
        port, management = free_port(), free_port()
        return started(
            [BIN / "service", "serve"],
            port,
            {
                "SERVICE_DATABASE_URL": url,
                "SERVICE_BIND": f"127.0.0.1:{port}",
                "SERVICE_MANAGEMENT_BIND": f"127.0.0.1:{management}",
            },
        )

    def theirs() -> Started:
        port = free_port()
        native = url.replace("postgresql+psycopg", "postgresql+asyncpg")
        command: list[Path | str] = [
            BIN / "uvicorn",
            "bench.apps.fastapi_ready:app",
            "--port",
            str(port),
            "--log-level",
            "error",
        ]
        return started(command, port, {"DATABASE_URL": native})

    ours(), theirs()  # files are read for the first time
    pairs = list(in_turns(ours, theirs, ROUNDS))
    for index, what in enumerate(("start to readyz", "processor time of it")):
        ratios = [mine[index] / other[index] for mine, other in pairs]
        show(f"{what}, to FastAPI on uvicorn", (statistics.median(ratios), ratios), MOST, at_most=True)


def started(command: list[Path | str], port: int, settings: Mapping[str, str]) -> Started:
    with running(command, port, settings) as (_, taken):
        return taken


@contextmanager
def running(command: list[Path | str], port: int, settings: Mapping[str, str]) -> Iterator[tuple[int, Started]]:
    """Yield the pid of a service that is ready, and what its start took; it is killed at the end."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | dict(settings), stderr=subprocess.DEVNULL)
    try:
        while not is_ready(port):
            assert process.poll() is None, f"{command[0]} has ended"
            time.sleep(POLL)
        yield process.pid, (time.perf_counter() - begun, cpu_seconds(process.pid))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def is_ready(port: int) -> bool:
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        asked.request("GET", "/readyz")
        return asked.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()
