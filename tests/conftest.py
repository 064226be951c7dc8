"""Yours: which service the tests are about, and the platform's fixtures."""

import pytest

from service.features import FEATURES
from service.platform.verbs import Program
from service.settings import Settings

pytest_plugins = ["service.platform.testing.side_by_side", "service.platform.testing.fixtures"]


@pytest.fixture(scope="session")
def program() -> Program:
    """Return the service that `make_settings` makes settings of."""
    return Program(Settings, FEATURES)
