"""What the platform reaches into in other packages is listed with its reason, and checked at start."""

import ast
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import service.platform
from service.platform.http.openapi.many import SEAMS as BODY_SEAMS
from service.platform.inside.tasks import SEAMS as TASK_SEAMS
from service.platform.seams import Seam, SeamsError, check_seams, untried
from service.platform.server import SEAMS, TRIED
from service.platform.testing.processes import run_to_end

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"^\| `([^`]+)`", re.MULTILINE)
STARTED_ELSEWHERE = ("testing", "database")  # tests use what they like; database has a table of its own
PACKAGES = {"h11", "hypercorn", "quart", "quart_schema", "quart_trio", "trio", "werkzeug", "wsproto"}
STANDARD = {"_current_frames", "_exit", "_is_gil_enabled", "_run_exitfuncs"}  # Python's own, which the tests run with
EMPTY = (lambda: None).__code__
# What belongs to the language or to ourselves.
OURS = re.compile(r"__\w+__$|_abc_impl$|_of_features$|_refuse_stopped$")


def test_the_installed_packages_fit() -> None:
    check_seams([*SEAMS, *BODY_SEAMS, *TASK_SEAMS])


@pytest.mark.parametrize(
    ("seam", "said"),
    [
        (Seam("hypercorn.trio.run:NoSuchServer"), "hypercorn.trio.run:NoSuchServer is missing"),
        (Seam("no_such_package:x"), "no_such_package:x is missing"),
        (
            Seam("hypercorn.trio.task_group:TaskGroup.spawn", "self, func"),
            r"takes \(self, func, \*args\), not \(self, func\)",
        ),
        (Seam("trio.lowlevel:Task", sets=("_cancel_status", "_no_such")), "trio.lowlevel:Task does not set _no_such"),
    ],
)
def test_what_does_not_fit_is_named(seam: Seam, said: str) -> None:
    with pytest.raises(SeamsError, match=said):
        check_seams([seam])


def test_a_version_that_was_not_tried_is_told_and_no_other() -> None:
    assert untried(TRIED) == {}
    assert untried({"h11": "0.0.1", "quart": version("quart")}) == {"h11": version("h11")}


# What a release of another package may bring, and how the sentence begins.
MISFITS = {
    "a method that takes something else": (
        "import hypercorn.trio.task_group as it\nit.TaskGroup.spawn_app = lambda app: None\n",
        "hypercorn.trio.task_group:TaskGroup.spawn_app takes (app)",
    ),
    "a private attribute that is gone": (
        "import wsproto.connection as it\n\n\n"
        "def init(self, connection_type, extensions=None, trailing_data=b''):\n"
        "    self._state = None\n\n\n"
        "it.Connection.__init__ = init\n",
        "wsproto.connection:Connection does not set _proto",
    ),
    "a private argument that is gone": (
        "import pydantic_core as it\nkept = it.SchemaValidator\n\n\n"
        "class SchemaValidator:\n"
        "    def __new__(cls, schema, config=None, **more):\n"
        "        return kept(schema, config)\n\n\n"
        "it.SchemaValidator = SchemaValidator\n",
        "pydantic_core:SchemaValidator takes (schema, config, **more)",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_the_start_stops_with_one_sentence_and_2(kind: str, tmp_path: Path, database_url: str) -> None:
    module, said = MISFITS[kind]
    (tmp_path / "sitecustomize.py").write_text(module)
    paths = f"{tmp_path}:{ROOT}"
    done = run_to_end(
        tmp_path,
        "serve",
        command=("env", f"PYTHONPATH={paths}", sys.executable, "-m", "service"),
        database_url=database_url,
    )

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"the installed packages do not fit: {said}")
    assert "Traceback" not in done.stderr


def modules() -> Iterator[Path]:
    for path in sorted((ROOT / "service" / "platform").rglob("*.py")):
        if path.relative_to(ROOT / "service" / "platform").parts[0] not in STARTED_ELSEWHERE:
            yield path


def private_uses(source: str) -> Iterator[str]:
    """Yield each private attribute that a module takes from something that is not itself, and each private import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("service"):
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            of_itself = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            if not of_itself and not OURS.search(node.attr):
                yield node.attr


def private_overrides() -> Iterator[str]:
    """Yield each private attribute of another package's class that a class of the platform has as well."""
    for found in pkgutil.walk_packages(service.platform.__path__, "service.platform."):
        if found.name.split(".")[2] in STARTED_ELSEWHERE:
            continue
        module = import_module(found.name)
        for kind in vars(module).values():
            if inspect.isclass(kind) and kind.__module__ == module.__name__:
                yield from _overridden(kind)


def _overridden(kind: type) -> Iterator[str]:
    outside = [base for base in kind.__mro__[1:] if base.__module__.split(".")[0] in PACKAGES]
    theirs = {
        name
        for base in outside
        for name in [*vars(base), *getattr(vars(base).get("__init__"), "__code__", EMPTY).co_names]
    }
    ours = {*vars(kind), *(set(re.findall(r"\bself\.(\w+)", inspect.getsource(kind))) if outside else ())}
    yield from (name for name in ours & theirs if name.startswith("_") and not OURS.match(name))


def listed_names() -> set[str]:
    rows = TABLE.findall((ROOT / "service/platform/server/README.md").read_text())
    return {row.rpartition(".")[2].rpartition(":")[2] for row in rows}


def test_every_private_name_of_another_package_is_checked_at_start() -> None:
    seams = [*SEAMS, *BODY_SEAMS, *TASK_SEAMS]
    checked = {name for seam in seams for name in (*re.split("[.:]", seam.where), *seam.sets)}

    assert {name for name in listed_names() if name.startswith("_")} - checked == STANDARD


def test_every_private_name_is_in_the_table_with_its_reason() -> None:
    listed = listed_names()
    used = {name for path in modules() for name in private_uses(path.read_text())} | set(private_overrides())

    print(f"{len(used)} private names: {', '.join(sorted(used))}")
    assert used - listed == set()
    assert {name for name in listed if name.startswith("_")} - used == set()
