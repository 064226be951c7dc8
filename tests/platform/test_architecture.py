"""The three rooms and their rules: who imports whom, who may use what, and that every import is declared."""

import ast
import re
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service"
PLATFORM = "service.platform"

# Inside the platform a module imports what stands on a line above its own, and within its own package. Each name is a
# package or a module of service/platform.
LAYERS = (
    {"name"},
    {"declarations", "settings", "errors", "failures", "lifecycle", "listener", "looks", "seams"},
    {"telemetry"},
    {"calls", "database", "server"},
    {"identity", "jobs"},
    {"feature"},
    {"http"},
    {"inside"},
    {"process"},
    {"reload"},
    {"client"},
    {"verbs"},
    {"testing"},
)

# What only one part of the platform may use, or the features, and nobody else.
A_FEATURE = "a feature"
RESERVED = {
    "trio.to_thread": {"calls", "database", A_FEATURE},  # for what a library does that blocks or computes
    "trio.lowlevel.start_thread_soon": {"database"},
    # database/launch.py hands it on to PostgreSQL's programs, and reload reads what others have named.
    "os.environ": {"settings", "database", "reload", "testing"},
    "os.getenv": {"settings"},
    "trio.open_signal_receiver": {"process", "reload"},
    "trio.run": {"verbs"},
}
LAST_OF_RESERVED = {name.rpartition(".")[2] for name in RESERVED}  # a whole name is put together for these alone
FEATURE_MAY_RUN = "verbs"  # a feature's verbs are clients with a `trio.run` of their own


def modules() -> list[Path]:
    return sorted(SERVICE.rglob("*.py"))


def dotted(path: Path) -> str:
    """Return a module's name: `service.platform.server.guard`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@dataclass(frozen=True)
class Said:
    """What the rules ask of a module's source: its docstring, imports by their full names, and reserved attributes."""

    docstring: str | None
    imports: tuple[str, ...]
    reserved: frozenset[str]


@cache
def read(source: str) -> Said:
    """Parse a source once for all tests: of the service's there are five that look at each."""
    tree = ast.parse(source)
    found: list[str] = []
    reserved: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and node.attr in LAST_OF_RESERVED:
            reserved.add(ast.unparse(node))
    return Said(ast.get_docstring(tree), tuple(found), frozenset(reserved & RESERVED.keys()))


def imports(source: str) -> tuple[str, ...]:
    """Return what a module imports from modules of the service, and whole modules, by their full names."""
    return read(source).imports


def room(name: str) -> str:
    """Return whose a module is: the platform's, yours (what stands beside it), or a feature's by its name."""
    parts = name.split(".")
    if name.startswith(f"{PLATFORM}.") or name == PLATFORM:
        return "platform"
    own = len(parts) < 2 or parts[1] in {"__main__", "features", "settings"}
    return "yours" if own else f"feature {parts[1]}"


def level(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def broken_rules(importer: str, source: str) -> list[str]:
    """Return each import of a module that the rules forbid it."""
    found = [name for name in imports(source) if name.split(".")[0] == "service"]
    check = {"platform": breaks_layers, "yours": breaks_nothing}.get(room(importer), breaks_a_feature)
    return [f"{importer} imports {name}{way_out(importer, name)}" for name in found if check(importer, name)]


def way_out(importer: str, name: str) -> str:
    """Return how a feature imports what is public, where an editor has found it in the module that defines it."""
    *path, last = name.split(".")
    package = ".".join(path[:3])
    elsewhere = room(importer) != "platform" and len(path) > 3 and is_public(f"{package}.{last}")
    return f": `from {package} import {last}`" if elsewhere else ""


def breaks_nothing(_importer: str, _name: str) -> bool:
    return False


def breaks_layers(importer: str, name: str) -> bool:
    """The platform imports nothing of `service` outside itself, and inside itself only from above."""
    if room(name) != "platform":
        return True
    here, there = (([*part.split("."), "", ""])[2] for part in (importer, name))
    return bool(here and there) and here != there and level(there) >= level(here)


def breaks_a_feature(importer: str, name: str) -> bool:
    """A feature imports its own, the service's settings, and public names of the platform; never a sibling."""
    if room(name) == room(importer) or name.startswith("service.settings."):
        return False
    return room(name) != "platform" or not is_public(name)


def is_public(name: str) -> bool:
    """Return whether a name is in a package's `__init__`, or in a module that stands directly in the platform."""
    parts = name.split(".")[2:]
    if len(parts) != 2:
        return False
    if (SERVICE / "platform" / f"{parts[0]}.py").exists():
        return True
    public = SERVICE / "platform" / parts[0] / "__init__.py"
    return public.exists() and f'"{parts[1]}"' in public.read_text()


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_keeps_to_the_rules_of_its_room(path: Path) -> None:
    assert broken_rules(dotted(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("service.platform.http.app", "from service.features import FEATURES"),
        ("service.platform.http.app", "from service.settings import Settings"),
        ("service.platform.database.door", "from service.platform.feature import Resources"),
        ("service.platform.errors", "from service.platform.database import Database"),
        ("service.platform.errors", "import service.platform.lifecycle"),
        ("service.platform.database.door", "from service.platform.server import serve"),
        ("service.platform.inside.health", "from service.platform.process import main"),
        ("service.yours.routes", "from service.hello import HELLO"),
        ("service.yours.routes", "import service.platform.process.main"),
        ("service.yours.routes", "from service.platform.http.app import no_deadline"),
        ("service.yours.routes", "from service.features import FEATURES"),
        ("service.yours", "from service.platform.server import no_such_name"),
    ],
)
def test_a_forbidden_import_is_found(importer: str, source: str) -> None:
    assert broken_rules(importer, source)


def test_a_name_that_is_public_elsewhere_says_where() -> None:
    [found] = broken_rules("service.yours.load", "from service.platform.client.load_plan import Part")

    assert found.endswith("load_plan.Part: `from service.platform.client import Part`")


@pytest.mark.parametrize(
    "source",
    [
        "from service.platform.http import no_deadline",
        "from service.platform.errors import Invalid",
        "from service.platform.feature import Feature, Resources",
        "from service.settings import Settings",
        "from service.yours.store import insert",
    ],
)
def test_what_a_feature_may_import_is_let_pass(source: str) -> None:
    assert broken_rules("service.yours.routes", source) == []


def test_the_packages_of_the_platform_all_have_a_place_in_the_layers() -> None:
    there = {
        path.stem
        for path in (SERVICE / "platform").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert there - {"__init__"} == set().union(*LAYERS)


def test_the_pages_name_the_layers() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text().partition("packages before its own:")[2].partition("4. ")[0]
    platform = (SERVICE / "platform" / "__init__.py").read_text().partition("From below: ")[2].partition(". Start")[0]

    assert [set(words.split()) for words in re.findall(r"`([a-z ]+)`", contributing)] == [*LAYERS]
    assert [{word.strip() for word in words.split(",")} for words in platform.split(";")] == [*LAYERS]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_reserved_is_used_only_where_it_belongs(path: Path) -> None:
    said = read(path.read_text())
    uses = said.reserved | set(said.imports)

    assert not {use for use, owners in RESERVED.items() if use in uses and not owners & whose(dotted(path))}


def whose(name: str) -> set[str]:
    """Return as whom a module uses what is reserved."""
    parts = name.split(".")
    if room(name) == "platform":
        return set(parts[2:3])
    if not room(name).startswith("feature "):
        return set()
    return {A_FEATURE, FEATURE_MAY_RUN} if parts[-1] == FEATURE_MAY_RUN else {A_FEATURE}


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("service.yours.routes", True),
        ("service.yours", True),
        ("service.platform.database.door", True),
        ("service.platform.http.app", False),
        ("service.settings", False),
    ],
)
def test_a_feature_may_have_a_thread_for_what_blocks(name: str, may: bool) -> None:
    assert bool(RESERVED["trio.to_thread"] & whose(name)) == may


def test_the_platform_hashes_by_what_a_fips_mode_leaves() -> None:
    """There MD5 raises, and in the Python of some systems BLAKE2 too: each request with a token was a 500."""
    used: set[str] = set()
    for path in (SERVICE / "platform").rglob("*.py"):
        source = path.read_text()
        attributes = {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
        used |= {name for name in attributes | set(imports(source)) if re.fullmatch(r"hashlib\.\w+", name)}

    assert used == {"hashlib.sha256"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_holds(path: Path) -> None:
    assert read(path.read_text()).docstring, "a module opens with what it holds and what it refuses to hold"


def declared() -> set[str]:
    """Return the names of all packages that pyproject.toml asks for, the project's own among them."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [document["project"]["name"], *document["project"]["dependencies"]]
    for group in (document["project"].get("optional-dependencies", {}), document["dependency-groups"]):
        asked += [entry for entries in group.values() for entry in entries if isinstance(entry, str)]
    return {normal(re.split(r"[^\w.-]", entry)[0]) for entry in asked}


def normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_what_is_imported_directly_is_declared() -> None:
    folders = ("service", "tests", "bench", "deploy", "helm", "migrations")
    roots = {
        name.split(".")[0]
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in imports(path.read_text())
    }
    distributions = packages_distributions()
    outside = roots - set(sys.stdlib_module_names) - set(folders)
    undeclared = {root for root in outside if not {normal(one) for one in distributions.get(root, [root])} & declared()}

    assert undeclared == set()
