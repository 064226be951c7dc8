"""What tests of `service dev` begin with."""

from pathlib import Path

import pytest

from service.platform.testing.development import Lay
from tests.system.reloaded import Clone


@pytest.fixture
def clone(tmp_path: Path, lay_development: Lay) -> Clone:
    return Clone(tmp_path / "a clone", lay_development)
