"""docs/identity.md: its rule and the test of it are run as they stand, on a feature that has nothing else."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from quart import Blueprint

from service.platform.feature import Feature, Resources
from service.platform.testing.fixtures import MakeSettings

PAGE = (Path(__file__).parents[2] / "docs" / "identity.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
[RULE] = [one for one in BLOCKS if "def staff(" in one]
[TEST] = [one for one in BLOCKS if "open_issuer" in one]


@asynccontextmanager
async def open_orders(_resources: Resources) -> AsyncIterator[Blueprint]:
    made: dict[str, Any] = {"routes": Blueprint("orders", __name__)}
    exec(RULE.replace(": ...", ":\n    return {'deleted': number}"), made)  # noqa: S102  the page's own
    yield made["routes"]


async def test_the_page_s_rule_passes_the_page_s_test(
    monkeypatch: pytest.MonkeyPatch, make_settings: MakeSettings
) -> None:
    module: Any = ModuleType("service.orders")
    module.ORDERS = Feature("orders", open=open_orders)
    monkeypatch.setitem(sys.modules, "service.orders", module)
    made: dict[str, Any] = {}
    exec(TEST, made)  # noqa: S102  the page's own

    await made["test_staff_alone_deletes"](make_settings)
