"""What the package relies on beyond what libraries promise stands in its README: a name with an underscore is found."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[3] / "service" / "platform" / "database"
DOCUMENTED = {"_replace", "_asdict", "_fields"}  # of named tuples, whose other names belong to their users


def private_names(source: str) -> set[str]:
    """Return the attributes with an underscore that are used of anything but `self` and `cls`."""
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    }


def own_names(source: str) -> set[str]:
    """Return the names with an underscore that the package itself defines."""
    tree = list(ast.walk(ast.parse(source)))
    defined = {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return defined | {node.attr for node in tree if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}


def test_every_private_name_of_a_library_is_told_and_why() -> None:
    sources = [path.read_text() for path in PACKAGE.glob("*.py")]
    foreign = {name for source in sources for name in private_names(source)}
    foreign -= {name for source in sources for name in own_names(source)}
    foreign -= DOCUMENTED
    told = (PACKAGE / "README.md").read_text()

    assert {name for name in foreign if name not in told} == set()
    assert foreign == {"_exit"}, "a new one needs its line, and a reason"


def test_a_private_name_is_found() -> None:
    assert private_names("engine.dialect._do_commit = 1; self._mine()") == {"_do_commit"}
