"""Which service a verb asks that is given no URL: the one that the settings name, whatever else is wrong with them."""

from pathlib import Path
from typing import Any

import pytest

from service.platform.testing.processes import run_to_end

HERE = "127.0.0.77:9077"  # where nobody listens


@pytest.mark.parametrize(
    "wrong",
    [
        {"log_level": "loud"},
        {"databse_url": "postgresql://a@b/c"},
        {"request_deadline": 10, "graceful_timeout": 1},
    ],
    ids=["a value", "a name", "two that do not fit together"],
)
@pytest.mark.parametrize(
    ("verb", "field"),
    [("info", "management_bind"), ("jobs", "management_bind"), ("load", "bind")],
    ids=["info", "jobs", "load"],
)
def test_a_setting_that_is_wrong_leads_to_no_other_service(
    verb: str, field: str, wrong: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"SERVICE_{field.upper()}={HERE}\n")
    done = run_to_end(tmp_path, verb, **wrong)

    assert f"http://{HERE} does not answer" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("SERVICE_MANAGEMENT_BIND=9077", "SERVICE_MANAGEMENT_BIND: '9077' must say where to listen"),
        ("SERVICE_MANAGEMNT_BIND=127.0.0.1:9077", "SERVICE_MANAGEMNT_BIND: no such setting; did you mean"),
        ('SERVICE_MANAGEMENT_BIND="127.0.0.1:9077', ".env:1: cannot be read"),
    ],
    ids=["a wrong value", "a wrong name", "a line that cannot be read"],
)
def test_where_it_listens_is_not_guessed(line: str, told: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{line}\n")
    done = run_to_end(tmp_path, "info")

    assert (done.returncode, told in done.stderr, "name the URL" in done.stderr) == (2, True, True), done
