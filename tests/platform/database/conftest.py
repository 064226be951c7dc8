"""Fixtures of the database's own tests."""

from pathlib import Path

import pytest

from tests.platform.database.migrations import Release, make_release


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Return a maker of releases: directories of migrations up to a head."""
    return lambda head: made if (made := tmp_path / f"release-{head}").exists() else make_release(tmp_path, head)
