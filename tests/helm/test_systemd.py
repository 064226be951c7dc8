"""The units for one machine: systemd takes them, they may do little, and they agree with the service."""

import configparser
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx2
import pytest

from service.platform.name import NAME
from service.platform.settings import PlatformSettings
from service.platform.testing.processes import SERVICE, started
from service.platform.verbs.program import CRASHED, FAILED, REFUSED, UNREACHABLE, WRONG
from tests.helm.charts import BIN, ROOT
from tests.helm.rules_of_pods import SETTINGS, settings_of

FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
EXPOSURE = 15  # tenths; `systemd-analyze security` calls up to 19 safe

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


class Unit(configparser.RawConfigParser):
    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, interpolation=None, comment_prefixes="#")
        self.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
        self.read(path)


def settings() -> PlatformSettings:
    lines = re.findall(r"^#? ?(SERVICE_[A-Z_]+)=(.*)$", (FOLDER / "environment").read_text(), re.MULTILINE)
    assert {name for name, _ in lines} <= SETTINGS.keys()
    return settings_of({"env": [{"name": name, "value": value} for name, value in lines]})


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a copy of the units whose program is this environment's: systemd looks whether it is there."""
    for unit in UNITS:
        text = unit.read_text().replace(f"/opt/{NAME}/.venv/bin", str(BIN)).replace(f"/opt/{NAME}\n", f"{ROOT}\n")
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@analyze
def test_systemd_takes_the_units(here: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", *(str(here / unit.name) for unit in UNITS)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (done.returncode, [line for line in done.stderr.splitlines() if NAME in line]) == (0, []), done.stderr


@analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_may_do_little(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def calls_of(name: str) -> set[str]:
    """Return the system calls of a group, or the one of this name, as this systemd knows them."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    members = [line.split("#")[0].strip() for line in done.stdout.splitlines()[1:]]
    return set().union(*(calls_of(member) for member in members if member))


def allowed(unit: Path) -> set[str]:
    """Read the filter as systemd does: line by line, `~` takes away what was there."""
    calls: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.MULTILINE):
        named = set().union(*(calls_of(name) for name in line.removeprefix("~").split()))
        calls = calls - named if line.startswith("~") else calls | named
    return calls


@analyze
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
async def test_the_service_makes_only_calls_that_its_unit_lets_it_make(tmp_path: Path, empty_database_url: str) -> None:
    """From its migration over a request to its drain; else systemd refuses what it needs, on the machine alone."""
    seen = tmp_path / "calls"
    traced = ("strace", "-D", "-f", "-qq", "-o", str(seen), *SERVICE)
    with started(tmp_path, "migrate", command=traced, database_url=empty_database_url) as migration:
        assert await migration.wait_end() == 0
    made = calls_in(seen)
    with started(tmp_path, "serve", command=traced, database_url=empty_database_url, drain_delay=0) as service:
        await service.wait_ready()
        async with httpx2.AsyncClient() as client:
            assert (await client.get(service.management + "/healthz")).is_success
        service.send(signal.SIGTERM)
        assert await service.wait_end() == 0
    made |= calls_in(seen)

    assert len(made) > 30
    for unit in UNITS:
        assert made - allowed(unit) == set()


def calls_in(trace: Path) -> set[str]:
    return set(re.findall(r"^\d+ +([a-z0-9_]+)\(", trace.read_text(errors="replace"), re.MULTILINE))


def test_the_units_user_may_read_what_is_installed_and_upgraded_under_a_strict_umask() -> None:
    """The clone has root's umask, and the environment that of whoever filled uv's cache."""
    sets_up = re.findall(r"^.*setup\.sh.*\n.*$", (FOLDER / "README.md").read_text(), re.MULTILINE)

    assert len(sets_up) == 2
    assert all(f"chmod -R go+rX /opt/{NAME}" in lines.splitlines()[1] for lines in sets_up)


def test_the_service_has_the_time_of_its_drain() -> None:
    assert float(Unit(FOLDER / f"{NAME}.service")["Service"]["TimeoutStopSec"]) >= settings().drain_bound


def test_the_service_comes_up_at_boot_after_its_migration_and_its_database() -> None:
    unit = Unit(FOLDER / f"{NAME}.service")

    assert unit["Install"]["WantedBy"] == "multi-user.target"
    assert f"{NAME}-migrate.service" in unit["Unit"]["Wants"]
    assert {f"{NAME}-migrate.service", "postgresql.service"} <= set(unit["Unit"]["After"].split())


def test_only_what_a_repeat_may_mend_is_repeated() -> None:
    migration = Unit(FOLDER / f"{NAME}-migrate.service")["Service"]
    service = Unit(FOLDER / f"{NAME}.service")["Service"]

    codes = {int(code) for code in migration["RestartPreventExitStatus"].split()}
    assert codes == {CRASHED, WRONG, REFUSED, FAILED}
    assert UNREACHABLE not in codes
    assert service["RestartPreventExitStatus"] == str(WRONG)


def test_both_units_are_locked_up_alike() -> None:
    """They run the same code, with the same right to nothing."""
    locks = [unit.read_text().partition("# What it does not need")[2].partition("[Install]")[0] for unit in UNITS]

    assert len({lock.partition("\n")[2].strip() for lock in locks}) == 1
    assert locks[0]
