"""Fixtures of the database's own tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platform.database.migrations import Release, make_release


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Return a maker of releases: directories of migrations up to a head."""
    return lambda head: made if (made := tmp_path / f"release-{head}").exists() else make_release(tmp_path, head)


@pytest.fixture
def public() -> Iterator[Path]:
    """Yield a directory that every user may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)
