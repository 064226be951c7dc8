"""The proxies' configurations in deploy, with the proxies: a rollout, who leaves, TLS, and who a client is."""

import re
import shutil
import signal
import ssl
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from trio_websocket import open_websocket_url

from service.platform.testing.own_server import free_port, free_ports, make_certificate
from service.platform.testing.place import Place
from service.platform.testing.processes import PATIENCE, ROOT, open_websocket
from tests.platform.database.observer import observe
from tests.system.test_process import WITH_FEATURES

DEPLOY = ROOT / "deploy"
CALLERS = 6
# Seconds from SIGTERM on in which a proxy that asks each second has noticed, also on a busy machine.
NOTICED = 4


@dataclass(frozen=True)
class Proxy:
    program: str
    command: Callable[[Path], list[str]]
    configure: Callable[[Path, int, list[Place]], str]
    tls: Callable[[Path], str]
    """What goes behind the address at which it listens so that TLS ends there, by the file of certificate and key."""
    asks: bool
    """Whether it asks replicas if they are ready, so that a new one has to wait until it is asked."""


def nginx(directory: Path, port: int, replicas: list[Place]) -> str:
    """Return the configuration with the ports of a test, inside the least that nginx wants round it."""
    inner = (DEPLOY / "nginx.conf").read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
    for number, replica in enumerate(replicas):
        inner = inner.replace(f"server 127.0.0.1:{8000 + number} ", f"server {address(replica)} ")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    return f"daemon off; pid {directory}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{places}{inner}}}\n"


def haproxy(directory: Path, port: int, replicas: list[Place]) -> str:
    """Return the configuration with the ports of a test, and with servers of its own in place of docker's names."""
    text = (DEPLOY / "balancer.cfg").read_text().replace("bind :8000", f"bind 127.0.0.1:{port}")
    text = re.sub(r"^resolvers docker\n(    .*\n)+", "", text, flags=re.MULTILINE)
    text = re.sub(r"^    # As many as.*\n", "", text, flags=re.MULTILINE)
    text = text.replace("check port 9000 ", "check ")
    servers = "".join(
        f"    server replica{number} {address(replica)} port {port_of(management(replica))}\n"
        for number, replica in enumerate(replicas)
    )
    return re.sub(r"^    server-template .*\n", servers, text, flags=re.MULTILINE)


NGINX = Proxy(
    "nginx",
    lambda file: ["-e", "stderr", "-c", str(file)],
    nginx,
    lambda pem: f" ssl http2; ssl_certificate {pem}; ssl_certificate_key {pem}",
    asks=False,
)
HAPROXY = Proxy(
    "haproxy", lambda file: ["-f", str(file)], haproxy, lambda pem: f" ssl crt {pem} alpn h2,http/1.1", asks=True
)


def address(replica: Place) -> str:
    return str(replica.settings["bind"])


def management(replica: Place) -> str:
    return str(replica.settings["management_bind"])


def port_of(where: str) -> int:
    return int(where.rpartition(":")[2])


@contextmanager
def started(proxy: Proxy, directory: Path, port: int, replicas: list[Place], certificate: Path | None) -> Iterator[str]:
    file, listens = directory / "proxy.conf", f"127.0.0.1:{port}"
    text = proxy.configure(directory, port, replicas)
    file.write_text(text if certificate is None else text.replace(listens, listens + proxy.tls(certificate)))
    command = [shutil.which(proxy.program) or "", *proxy.command(file)]
    with (directory / "proxy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"{'https' if certificate else 'http'}://{listens}"
        assert process.poll() is None, (directory / "proxy.log").read_text()
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=[NGINX, HAPROXY], ids=lambda proxy: proxy.program)
def proxy(request: pytest.FixtureRequest) -> Proxy:
    found: Proxy = request.param
    if shutil.which(found.program) is None:
        pytest.skip(f"needs {found.program}")
    return found


@asynccontextmanager
async def proxied(
    proxy: Proxy, directory: Path, database_url: str, *, certificate: Path | None = None, **first: Any
) -> AsyncIterator[tuple[str, list[Place]]]:
    """Yield the proxy's URL once it answers, and the two replicas behind it; `first` are settings of one of them.

    With the file of a certificate and its key TLS ends at the proxy.
    """
    ports = free_ports(4)
    replicas = [
        Place(
            directory / f"replica{number}", "STREAMING", "HOLDING", "TICKING", command=WITH_FEATURES,
            database_url=database_url, trusted_proxies="127.0.0.1", rate_per_address=0,
            bind=f"127.0.0.1:{ports[2 * number]}", management_bind=f"127.0.0.1:{ports[2 * number + 1]}",
            drain_delay=NOTICED, drain_spread=0, **(first if number == 0 else {}),
        )
        for number in range(2)
    ]  # fmt: skip
    with closing(replicas[0]), closing(replicas[1]):
        for replica in replicas:
            replica.launch()
        for replica in replicas:
            assert replica.process
            await replica.process.wait_ready()
        with started(proxy, directory, free_port(), replicas, certificate) as url:
            async with httpx2.AsyncClient(verify=trusting(certificate)) as client:
                await wait_answer(client, url)
            yield url, replicas


def certificate_and_key(directory: Path) -> Path:
    """Return one file with both, as proxies take them."""
    make_certificate(directory)
    file = directory / "both.pem"
    file.write_bytes(b"".join((directory / name).read_bytes() for name in ("cert.pem", "key.pem")))
    return file


def trusting(certificate: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


async def wait_answer(client: httpx2.AsyncClient, url: str) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            try:
                if (await client.get(url + "/readyz")).is_success:
                    return
            except httpx2.TransportError:
                await trio.sleep(0.05)


async def restart(replica: Place, *, wait_found: bool) -> None:
    """Restart a replica, and return when it is ready, or the proxy has found it again."""
    assert await replica.end(signal.SIGTERM) == 0
    process = replica.launch()
    await process.wait_ready()
    if wait_found:
        await process.wait_event("request")


async def test_a_rollout_fails_no_request_behind_a_proxy(proxy: Proxy, tmp_path: Path, database_url: str) -> None:
    answers: Counter[str] = Counter()
    over = trio.Event()

    async def call(url: str, method: str, path: str) -> None:
        body = {"a": 1} if method == "POST" else None
        async with httpx2.AsyncClient(timeout=PATIENCE) as client:
            while not over.is_set():
                try:
                    answers[f"{method} {(await client.request(method, url + path, json=body)).status_code}"] += 1
                except httpx2.TransportError as error:
                    answers[repr(error)] += 1
                await trio.sleep(0.02)

    async def converse(url: str) -> None:
        while not over.is_set():
            async with open_websocket(url, "/echo") as socket:
                await socket.send_message("word")
                answers[str(await socket.get_message())] += 1
            await trio.sleep(0.02)

    with trio.fail_after(2 * PATIENCE):
        async with proxied(proxy, tmp_path, database_url) as (url, replicas), trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(call, url, "GET", "/")
                nursery.start_soon(call, url, "POST", "/read")
            nursery.start_soon(converse, url)
            for replica in replicas:
                await restart(replica, wait_found=proxy.asks)
            over.set()

    assert answers.keys() == {"GET 200", "POST 200", "word"}, answers


async def test_nginx_opens_a_websocket_at_the_next_replica_when_one_refuses_it(
    tmp_path: Path, database_url: str
) -> None:
    """One that leaves does, and it is not known to leave."""
    if shutil.which(NGINX.program) is None:
        pytest.skip("needs nginx")
    with trio.fail_after(PATIENCE):
        async with proxied(NGINX, tmp_path, database_url, max_websockets=0) as (url, _):
            for _ in range(4):
                async with open_websocket(url, "/echo") as socket:
                    await socket.send_message("word")
                    assert await socket.get_message() == "word"


async def test_a_client_that_leaves_has_its_query_cancelled_behind_a_proxy(
    proxy: Proxy, tmp_path: Path, database_url: str
) -> None:
    with trio.fail_after(PATIENCE), observe(database_url) as observer:
        async with proxied(proxy, tmp_path, database_url) as (url, _):
            client = await trio.open_tcp_stream("127.0.0.1", port_of(url))
            await client.send_all(b"GET /slow-unit HTTP/1.1\r\nHost: x\r\n\r\n")
            await observer.wait_running()
            await client.aclose()
            took = await observer.wait_gone()

    assert took < 5  # of the 20 s that it sleeps, and of the 10 s that a request may take


async def test_a_part_of_an_answer_does_not_wait_for_the_next_in_a_proxy(
    proxy: Proxy, tmp_path: Path, database_url: str
) -> None:
    """In one of several tries, as the two also meet where this process is late."""
    alone = False
    with trio.fail_after(PATIENCE):
        async with proxied(proxy, tmp_path, database_url) as (url, _):
            for _ in range(20):
                async with await trio.open_tcp_stream("127.0.0.1", port_of(url)) as client:
                    await client.send_all(b"GET /ticking HTTP/1.1\r\nHost: x\r\n\r\n")
                    came = b""
                    while b"tick" not in came:
                        came += await client.receive_some()
                alone = alone or b"tock" not in came

    assert alone


def clients(replicas: list[Place], request_id: str) -> list[str]:
    """Return who is said to have sent a request, by the logs."""
    lines = [line for replica in replicas if replica.process for line in replica.process.events("request")]
    return [line["client"] for line in lines if line["request_id"] == request_id]


async def test_a_proxy_says_who_the_client_is_and_believes_no_client(
    proxy: Proxy, tmp_path: Path, database_url: str
) -> None:
    claims = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "Forwarded": "for=192.0.2.2;proto=https"}
    async with proxied(proxy, tmp_path, database_url) as (url, replicas), httpx2.AsyncClient() as client:
        told = (await client.get(url, headers=claims)).headers["x-request-id"]
        with trio.fail_after(PATIENCE):
            while not (logged := clients(replicas, told)):  # noqa: ASYNC110  a log has no event
                await trio.sleep(0.02)

    assert logged == ["127.0.0.1"]


async def test_a_proxy_at_which_tls_ends_says_so(proxy: Proxy, tmp_path: Path, database_url: str) -> None:
    """What a feature writes about itself, such as where a browser comes back to, is else an address without TLS."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    certificate = certificate_and_key(tmp_path)
    context = trusting(certificate)
    with trio.fail_after(2 * PATIENCE):
        async with (
            proxied(proxy, tmp_path, database_url, certificate=certificate) as (url, _),
            httpx2.AsyncClient(verify=context) as client,
        ):
            told = (await client.get(url + "/url", headers={"X-Forwarded-Proto": "http"})).text
            where, page = url.replace("https:", "wss:") + "/echo", [(b"Origin", url.encode())]
            async with open_websocket_url(where, ssl_context=context, extra_headers=page) as socket:
                await socket.send_message("word")
                word = await socket.get_message()

    assert (told, word) == (url + "/url", "word")
