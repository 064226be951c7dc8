"""The dependency rule: a module imports only from lines above its own, and a feature never a sibling."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICE = ROOT / "service"

# A module may import what stands on a line above its own, and within its own package.
LAYERS = (
    {"settings", "settings_types", "settings_words", "errors", "lifecycle"},
    {"lines"},
    {"logs", "metrics", "processor", "tracing", "watchdog"},
    {"database", "server"},
    {"resources", "openapi", "activities"},
    {"requests", "health", "<feature>"},
    {"app", "features"},
    {"management", "readings", "tasks"},
    {"main"},
    {"commands", "__main__", "start"},
)
KNOWN = frozenset().union(*LAYERS)

# Which module may use what only one part of the service is to know.
RESERVED = {
    "trio.to_thread": {"database"},
    "trio.lowlevel.start_thread_soon": {"database"},
    "os.environ": {
        "settings",
        "database",
    },  # database/launch.py hands it on to PostgreSQL's programs, and reads nothing
    "os.getenv": {"settings"},
    "trio.open_signal_receiver": {"main"},
    "trio.run": {"__main__", "commands"},  # the service's own is in __main__; verbs that are clients have theirs
}


def modules() -> list[Path]:
    return sorted(SERVICE.rglob("*.py"))


def part(path: Path) -> str:
    """Return the module or package directly below service/ that a file belongs to."""
    return path.relative_to(SERVICE).parts[0].removesuffix(".py")


def level(name: str) -> int:
    wanted = name if name in KNOWN else "<feature>"
    return next(number for number, layer in enumerate(LAYERS) if wanted in layer)


def imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def broken_rules(importer: str, source: str) -> list[str]:
    """Return each import of a module that its place in the layers forbids."""
    broken = []
    for name in imports(source):
        package, _, rest = name.partition(".")
        imported = rest.split(".")[0]
        if package != "service" or not imported or imported == importer:
            continue
        sibling = importer not in KNOWN and imported not in KNOWN
        same = level(imported) == level(importer) and importer in KNOWN
        if sibling or level(imported) > level(importer) or (same and not _together(importer, imported)):
            broken.append(f"{importer} imports {name}")
    return broken


def _together(importer: str, imported: str) -> bool:
    """Return whether two names of one layer make one thing."""
    settings = importer.startswith("settings") and imported.startswith("settings")
    operators = importer == "management" and imported == "tasks"
    return settings or operators or importer in {"commands", "__main__", "start"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_layers_below(path: Path) -> None:
    if path.parent == SERVICE and path.name == "__init__.py":
        return
    assert broken_rules(part(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("database", "from service.resources import Resources"),
        ("errors", "from service.database import Database"),
        ("yours", "from service.hello import open_hello"),
        ("yours", "import service.main"),
        ("health", "from service import app"),
        ("database", "from service.server import serve"),
    ],
)
def test_a_forbidden_import_is_found(importer: str, source: str) -> None:
    assert broken_rules(importer, source)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_reserved_is_used_only_where_it_belongs(path: Path) -> None:
    uses = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    uses |= set(imports(path.read_text()))

    stolen = {use for use, owners in RESERVED.items() if use in uses and part(path) not in owners}
    assert not stolen


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_at_most_250_lines_and_says_what_it_holds(path: Path) -> None:
    source = path.read_text()

    assert len(source.splitlines()) <= 250
    assert ast.get_docstring(ast.parse(source)), "a module opens with what it holds and what it refuses to hold"
