"""A setting belongs to who reads it: one that nobody reads is documented for nothing."""

import ast
from pathlib import Path

from service.platform.settings import PlatformSettings

PLATFORM = Path(__file__).parents[3] / "service" / "platform"


def attributes(path: Path) -> set[str]:
    return {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def test_every_setting_of_the_platform_is_read_by_the_platform() -> None:
    outside = [path for path in PLATFORM.rglob("*.py") if path.parent.name not in {"settings", "testing"}]
    read = set().union(*map(attributes, outside))

    assert PlatformSettings.model_fields.keys() - read == set()


def test_one_that_nobody_reads_is_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("settings.bind = 1\n")

    assert "bind" in attributes(tmp_path / "module.py")
    assert "max_requests" not in attributes(tmp_path / "module.py")
