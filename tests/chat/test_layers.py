"""The dependency rule inside the chat: what decides does not act."""

import pytest

from tests.platform.test_architecture import SERVICE, imports


@pytest.mark.parametrize("name", ["protocol", "parsing", "room", "tail", "backlog", "limits", "presence"])
def test_what_decides_knows_no_framework_and_no_sql(name: str) -> None:
    names = set(imports((SERVICE / "chat" / f"{name}.py").read_text()))

    assert not {name for name in names if name.split(".")[0] in {"quart", "sqlalchemy", "quart_trio"}}
