"""Deleting every feature leaves a service that runs and a platform that passes its tests, under any name."""

import re
import sys
from pathlib import Path

import httpx2
import pytest
import trio

from service.platform.testing.copies import (
    KNOW_OF_NO_FEATURE,
    ROOT,
    commit,
    copy_repository,
    run_in,
    run_suite,
    strip_features,
    type_check,
)
from service.platform.testing.processes import ready, run_to_end

# What `make migration NAME=add_total` and a second file of tests leave, neither of which names its feature.
MIGRATION = 'revision = "add_total"\ndown_revision = "add_orders"\nserves_from = "add_orders"\nbreaking = None\n'
OF_A_FEATURE = {
    "service/orders/__init__.py": "",
    "migrations/versions/5eed5eed5eed_add_total.py": MIGRATION,
    "tests/test_totals.py": "import service.orders\n",
}
TRIED_OTHERWISE = (
    *("tests/platform/test_architecture.py", "tests/platform/test_rooms.py", "tests/platform/test_style.py"),  # here
    # They bring a feature, or a clone with one, for what they try; `dev` and `serve` with none are tried.
    *(f"tests/system/test_{name}.py" for name in ("breakpoint", "processor", "proxies", "reload", "tracing")),
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository under another name, and without any feature, its tests and its migration."""
    copy = copy_repository(tmp_path_factory.mktemp("bare") / "clone")
    done = run_in(copy, "python", "deploy/rename.py", "acme-shop")
    assert done.returncode == 0, done.stderr
    commit(copy)
    for name, text in OF_A_FEATURE.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    strip_features(copy, keep_template_s=False)
    done = run_in(copy, "python", "deploy/generate.py")
    assert done.returncode == 0, done.stderr
    commit(copy)
    return copy


def test_nothing_of_the_platform_misses_a_feature(bare: Path) -> None:
    checked = run_in(bare, "pytest", "-q", "-p", "no:cacheprovider", "tests/platform/test_architecture.py")

    assert not re.findall(r"FAILED.*", checked.stdout)
    assert checked.returncode == 0, checked.stdout


async def test_the_service_runs(bare: Path, tmp_path: Path, empty_database_url: str) -> None:
    command = ("env", f"PYTHONPATH={bare}", sys.executable, "-m", "service")
    assert run_to_end(tmp_path, "migrate", command=command, database_url=empty_database_url).returncode == 0
    async with (
        ready(tmp_path, "serve", command=command, database_url=empty_database_url, drain_delay=0) as service,
        httpx2.AsyncClient() as client,
    ):
        document = (await client.get(service.public + "/openapi.json")).json()

    paths = {path for path in document["paths"] if not path.startswith("/auth/")}
    assert paths == {"/livez", "/readyz", "/healthz"}


@pytest.mark.ci
def test_it_types(bare: Path) -> None:
    done = type_check(bare)

    assert done.returncode == 0, done.stdout


@pytest.mark.ci
async def test_the_tests_of_the_platform_are_green(bare: Path) -> None:
    """What processes of the service do, and what is generated of it."""
    done = await trio.to_thread.run_sync(
        lambda: run_suite(bare, "tests/platform", "tests/system", without=TRIED_OTHERWISE)
    )

    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("name", KNOW_OF_NO_FEATURE)
def test_what_is_left_out_there_names_no_features(name: str) -> None:
    place = ROOT / name
    texts = [path.read_text() for path in (place.rglob("*.py") if place.is_dir() else [place])]

    assert texts
    assert not [text for text in texts if "service.features" in text]
