"""What the documents say is true: commands run, links lead somewhere, verbs and targets exist."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from service.platform.testing.copies import template_page
from service.platform.testing.development import Lay
from service.platform.testing.processes import SERVICE, ready

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "helm/*.md", "service/**/*.md")
    for path in ROOT.glob(pattern)
)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"\]\(([^)]+\.py)\)\s+`(?:\w+\.)?(\w+)`")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")


def commands(document: Path) -> list[str]:
    lines = [line.strip() for block in BLOCK.findall(document.read_text()) for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line and not line.startswith("#")]


async def test_the_readme_s_requests_are_answered(tmp_path: Path, lay_development: Lay) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    readme = template_page("README.md")
    requests = [command for command in commands(readme) if command.startswith("curl")] if readme.exists() else []
    if not requests:
        pytest.skip("there is no page of the template here, or it names no request")
    lay_development(tmp_path)
    async with ready(tmp_path, "dev") as service:
        for request in requests:
            here = request.replace("http://127.0.0.1:8000", service.public)
            here = here.replace("http://127.0.0.1:9000", service.management)
            done = subprocess.run(
                [curl, "--fail", *shlex.split(here)[1:]], capture_output=True, text=True, timeout=10, check=False
            )
            assert (done.returncode, done.stdout[:1]) == (0, "{"), request


def sections(document: Path) -> set[str]:
    """Return the anchors that a document's headings make."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(document: Path) -> None:
    missing = []
    for name, section in LINK.findall(document.read_text()):
        target = document.parent / name if name else document
        if "://" in name:
            continue
        if not target.exists() or (section and section not in sections(target)):
            missing.append(f"{name}#{section}")

    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_that_is_named_after_its_file_is_there(document: Path) -> None:
    for path, name in CODE.findall(document.read_text()):
        assert re.search(rf"^ *(?:async def|def|class) {name}\b", (document.parent / path).read_text(), re.MULTILINE), (
            name
        )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_commands_name_are_there_for_who_is_at_the_root(document: Path) -> None:
    named = [name for command in commands(document) for name in re.findall(r"\s([\w/.-]+\.(?:yaml|sh))\b", command)]

    assert [name for name in named if not name.startswith("/") and not (ROOT / name).exists()] == []


@pytest.fixture(scope="module")
def verbs() -> set[str]:
    return set(re.findall(r"^  ([a-z]+) ", subprocess.check_output([*SERVICE, "--help"], text=True), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_targets_and_verbs_exist(document: Path, verbs: set[str]) -> None:
    text = document.read_text()
    code = " ".join(re.findall(r"`[^`\n]+`", text) + commands(document))
    targets = set(re.findall(r"\bmake ([a-z][a-z-]*)", code))

    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`(?:\.venv/bin/)?service ([a-z]+)", text)) <= verbs
