"""The units for one machine: systemd takes them, they may do little, and they agree with the service."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.platform.name import NAME
from service.platform.settings import PlatformSettings
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
