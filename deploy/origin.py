"""Where a clone comes from and what it made of the template: `.template.toml`, which its commands write."""

import re
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from deploy.clone import ROOT, Refused, ask, need_clean_clone, project_name

RECORD = ".template.toml"
NOTE = "# Where this clone comes from, and what it made of it. `make update` reads this and writes it.\n"


@dataclass(frozen=True)
class Origin:
    """What an update has to know. `commit` and `version` are the template's; empty is unknown."""

    url: str = ""
    commit: str = ""
    version: str = ""
    name: str = ""
    holder: str = ""  # with the year: "2026 Example Ltd"
    removed: tuple[str, ...] = ()  # X for each deploy/remove_X.py that was run

    @classmethod
    def read(cls, root: Path = ROOT) -> Self | None:
        """Return what is recorded, or None. Raises Refused when it cannot be read."""
        path = root / RECORD
        try:
            return cls.parse(path.read_text()) if path.exists() else None
        except (ValueError, TypeError) as error:
            raise Refused(f"{RECORD} cannot be read: {error}") from error

    @classmethod
    def parse(cls, text: str) -> Self:
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {name: value for name, value in tomllib.loads(text).items() if name in known}
        return cls(**given | {"removed": tuple(given.get("removed", ()))})

    def write(self, root: Path = ROOT) -> None:
        lines = [f"{name} = {_toml(value)}\n" for name, value in asdict(self).items()]
        (root / RECORD).write_text(NOTE + "".join(lines))


def need_clone_to_record() -> None:
    """Refuse before anything is changed: where git could not undo it, or what is recorded cannot be read."""
    need_clean_clone()
    Origin.read()


def remember(**made: Any) -> None:
    """Record what a command has just made of the clone; with the first one, where it came from as well."""
    known = Origin.read() or Origin(
        url=without_password(ask("config", "--get", "remote.origin.url")),
        commit=ask("rev-parse", "--verify", "HEAD"),
        version=ask("describe", "--tags", "--always"),
    )
    if "removed" in made:
        made["removed"] = tuple(sorted({*known.removed, *made["removed"]}))
    replace(known, **{"name": project_name()} | made).write()


def without_password(text: str) -> str:
    """Return an address, or a sentence with one, without who asks there: it is going to be committed or shown."""
    return re.sub(r"(https?://)[^/@\s]*@", r"\1", text)


def _toml(value: str | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
