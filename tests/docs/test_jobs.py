"""docs/jobs.md: its code is run as it stands, and does what the page says."""

import re
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from sqlalchemy import Connection, text

from service.platform.database import open_database
from service.platform.feature import Feature, catalogue
from service.platform.jobs import enqueue, open_jobs
from service.platform.settings import PlatformSettings
from service.platform.telemetry import Metrics
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.settings import settings_of
from tests.platform.features import open_plain

DOCS = Path(__file__).parents[2] / "docs"


def files(page: str) -> list[tuple[str, str]]:
    return re.findall(r"^```python\n# (\S+)\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


FILES = [*(one for one in files("add-a-feature.md") if one[0] == "service/orders/settings.py"), *files("jobs.md")]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the modules of the page by their names."""
    made: dict[str, Any] = {}
    feature: Any = ModuleType("service.orders")
    monkeypatch.setitem(sys.modules, "service.orders", feature)
    for path, source in FILES:
        if path.startswith("tests/"):
            jobs = (*made["jobs"].JOBS, made["reminding"].remind)
            feature.ORDERS = Feature("orders", open=open_plain, settings=made["settings"].OrdersSettings, jobs=jobs)
        name = path.removesuffix(".py").replace("/", ".")
        module = made[name.rpartition(".")[2]] = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102  the page's own
    return made


def create_tables(connection: Connection) -> None:
    connection.execute(text("DROP TABLE IF EXISTS orders, mail, report CASCADE"))  # a clone may have its own
    for columns in (
        "orders (id serial PRIMARY KEY, customer text, total int, placed_at timestamptz DEFAULT now(), "
        "due_at timestamptz, paid boolean NOT NULL DEFAULT false)",
        "mail (key text PRIMARY KEY, customer text, total int)",
        "report (day date PRIMARY KEY, orders int, total int)",
    ):
        connection.execute(text(f"CREATE TABLE {columns}"))


def mails(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT customer FROM mail")).scalars())


async def test_an_order_is_mailed_once_and_told_to_a_warehouse_that_was_away(
    modules: dict[str, Any], make_settings: MakeSettings
) -> None:
    heard: list[str] = []

    async def warehouse(stream: trio.SocketStream) -> None:
        heard.append((await stream.receive_some()).decode())
        status = (b"503 Service Unavailable", b"204 No Content")[len(heard) > 1]
        await stream.send_all(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status)

    with trio.fail_after(60):
        async with open_database(make_settings()) as database, trio.open_nursery() as nursery:
            await database.run(create_tables)
            [listener] = await nursery.start(partial(trio.serve_tcp, warehouse, 0, host="127.0.0.1"))
            url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            settings = make_settings().with_features({"orders": modules["settings"].OrdersSettings(warehouse_url=url)})
            async with open_jobs(database, modules["jobs"].JOBS, settings, Metrics()):
                place = modules["store"].place
                order = await database.run(place, customer="ann", total=7)
                while len(heard) < 2 or await database.read(mails) != ["ann"]:
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    assert [one.split("\r\n")[0] for one in heard] == [f"PUT /orders/{order} HTTP/1.1"] * 2
    keys = [re.findall(r"(?i)^idempotency-key: (\S+)", one, re.MULTILINE) for one in heard]
    assert keys[0] == keys[1] != []  # the same at each attempt


async def test_a_reminder_that_was_put_off_waits_again_and_of_what_was_paid_there_is_none(
    modules: dict[str, Any], make_settings: MakeSettings
) -> None:
    remind = modules["reminding"].remind

    def fill(connection: Connection) -> list[Any]:
        create_tables(connection)
        new = "INSERT INTO orders (customer, due_at, paid) VALUES (:who, now() + make_interval(hours => :hours), :paid)"
        for who, hours, paid in (("ann", -1, False), ("bob", 24, False), ("cid", -1, True)):
            connection.execute(text(new), {"who": who, "hours": hours, "paid": paid})
        for order in (1, 2, 3):
            remind(connection, order=order)
        later = "SELECT key, arguments, run_at > now() + interval '23 hours' FROM job WHERE kind = 'remind'"
        return [tuple(row) for row in connection.execute(text(later))]

    async with open_database(make_settings()) as database:
        assert await database.run(fill) == [("order-2", {"order": 2}, True)]
        assert await database.read(mails) == ["ann"]


async def test_its_test_needs_no_time(modules: dict[str, Any], database_url: str, make_settings: MakeSettings) -> None:
    async with open_database(make_settings()) as database:
        await database.run(create_tables)
    page = modules["test_orders_jobs"]
    make = partial(settings_of, catalogue(PlatformSettings, [page.ORDERS]), database_url=database_url)

    with trio.fail_after(120):
        await page.test_who_has_not_paid_is_reminded_and_a_warehouse_that_stays_away_ends_its_job(make)


async def test_what_waits_of_a_kind_that_is_taken_away_is_ended(
    modules: dict[str, Any], make_settings: MakeSettings
) -> None:
    [statement] = re.findall(r'`op\.execute\("(UPDATE job .*)"\)`', (DOCS / "jobs.md").read_text())
    confirm, remind = modules["jobs"].confirm, modules["reminding"].remind

    def states(connection: Connection) -> list[tuple[str, str]]:
        for kind in (confirm, confirm.with_options(delay=60), remind):
            enqueue(connection, kind, order=7)
        connection.execute(text(statement))
        return [(row.kind, row.state) for row in connection.execute(text("SELECT kind, state FROM job ORDER BY id"))]

    async with open_database(make_settings()) as database:
        assert await database.run(states) == [("confirm", "discarded")] * 2 + [("remind", "waiting")]


async def test_the_report_adds_up_the_day_before(modules: dict[str, Any], make_settings: MakeSettings) -> None:
    def fill(connection: Connection) -> list[tuple[int, int]]:
        create_tables(connection)
        for at in ("2026-03-01 12:00Z", "2026-03-01 13:00Z", "2026-03-02 12:00Z"):
            connection.execute(text("INSERT INTO orders (total, placed_at) VALUES (5, :at)"), {"at": at})
        modules["jobs"].report(connection, turn=datetime(2026, 3, 2, 2, 30, tzinfo=UTC))
        return [(row.orders, row.total) for row in connection.execute(text("SELECT orders, total FROM report"))]

    async with open_database(make_settings()) as database:
        assert await database.run(fill) == [(2, 10)]
