"""From the environment to one frozen object of settings. The only module that reads the environment.

Raises SettingsError with every problem at once, a line each: wrong values, and names that look like a misspelt setting.
"""

import contextlib
import io
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from dotenv.variables import Variable, parse_variables
from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings

from service.platform.settings.base import PlatformSettings
from service.platform.settings.frozen import PREFIX, FeatureSettings, Frozen, prefix_of
from service.platform.settings.secrets import MARK, SecretUnreadable, read_secret
from service.platform.settings.words import nearest, sentence, shown

ENV_FILE = ".env"
WHERE_ELSE = "a value that has that itself belongs into the environment or a file of secrets"
SECRETS_DIR = PREFIX + "SECRETS_DIR"  # says where settings come from, and so is not one itself

# What libpq says to the server in the name of a session, after and so above all that it is told by its caller: in
# another form than ours, times cannot be read.
LIBPQ_FORMS = ("PGDATESTYLE", "PGTZ")
# What leads it past the host of an address, one of a socket too, to whatever server a shell has in mind.
LIBPQ_PLACES = ("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE")

TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT"  # OpenTelemetry's names are its own; this one turns tracing on


class SettingsError(Exception):
    """The environment holds wrong or misspelt settings; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable, and the field that it fills."""

    variable: str
    info: FieldInfo
    group: type[BaseSettings]
    field: str


def hide_from_libpq() -> None:
    """Take out of the environment what libpq would take from it past what it is told."""
    for name in (*LIBPQ_FORMS, *LIBPQ_PLACES):
        os.environ.pop(name, None)


class Catalogue:
    """All settings that a service has: yours and the platform's, then each feature's that brings some."""

    def __init__(self, settings: type[PlatformSettings], of_features: Mapping[str, type[FeatureSettings]] = {}) -> None:
        """Raise ValueError when two fields would be the same variable."""
        self.settings = settings
        self.of_features = of_features
        self._by_variable: dict[str, Setting] = {}
        for prefix, group in ((PREFIX, settings), *((prefix_of(name), kind) for name, kind in of_features.items())):
            for field, info in group.model_fields.items():
                name = variable(field, prefix)
                if (other := self._by_variable.get(name)) is not None:
                    raise ValueError(
                        f"{name}: is a field of {other.group.__name__} and of {group.__name__}; rename one"
                    )
                self._by_variable[name] = Setting(name, info, group, field)

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._by_variable.values())

    @property
    def variables(self) -> Iterable[str]:
        return self._by_variable

    def find(self, variable: str) -> Setting:
        return self._by_variable[variable]

    def load(self) -> tuple[PlatformSettings, dict[str, str]]:
        """Return the settings, and for each variable where its value came from.

        The first of these that holds a value wins: the environment, `.env`, the files in `SERVICE_SECRETS_DIR`. What
        libpq would take from the environment past them is taken out of it.
        """
        directory = _readable_directory()
        hide_from_libpq()
        given = _given(directory)
        problems = [self._no_such(name) for name in given if self._misspelt(name)]
        loaded: dict[str, FeatureSettings] = {}
        settings = self._try(self.settings, PREFIX, directory, problems)
        for name, kind in self.of_features.items():
            if (made := self._try(kind, prefix_of(name), directory, problems)) is not None:
                loaded[name] = made
        if problems or settings is None:
            raise SettingsError(problems)
        return settings.with_features(loaded), {name: given.get(name, "default") for name in self.variables}

    def load_alone(self, field: str) -> Any:
        """Return one field of yours or the platform's, whatever is wrong with the others."""
        info, directory = self.settings.model_fields[field], _readable_directory()
        problems = [self._no_such(name) for name in _given(directory) if self._misspelt(name) == variable(field)]
        alone: dict[str, Any] = {field: (info.annotation, info)}
        settings = self._try(create_model("Alone", __base__=Frozen, **alone), PREFIX, directory, problems)
        if problems or settings is None:
            raise SettingsError(problems)
        return getattr(settings, field)

    def unknown_names(self) -> list[str]:
        """Return the `SERVICE_*` names that are no setting and resemble none: worth a warning, no more."""
        names = _given(_secrets_directory())
        return [name for name in names if name not in self._by_variable and not self._misspelt(name)]

    def _try[S: BaseSettings](self, kind: type[S], prefix: str, directory: str | None, problems: list[str]) -> S | None:
        """Read one class from all sources; what is wrong is added to `problems`."""
        try:
            return kind(_env_prefix=prefix, _env_file=ENV_FILE, _secrets_dir=directory)
        except ValidationError as error:
            problems += [self._problem(prefix, detail) for detail in error.errors()]
            return None

    def _problem(self, prefix: str, detail: ErrorDetails) -> str:
        if not detail["loc"]:
            return detail["msg"]  # settings that do not fit together name themselves
        name = variable(str(detail["loc"][0]), prefix)
        return sentence(name, self.find(name).info, detail)

    def _no_such(self, name: str) -> str:
        return f"{name}: no such setting; did you mean {self._misspelt(name)}?"

    def _misspelt(self, name: str) -> str | None:
        return None if name in self._by_variable else nearest(name, (*self._by_variable, SECRETS_DIR))


def effective(settings: PlatformSettings, origins: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield variable, value as it may be shown to anybody, and origin, for each setting that is in force."""
    for prefix, group in settings.groups():
        for field in type(group).model_fields:
            name = variable(field, prefix)
            yield name, shown(getattr(group, field)), origins.get(name, "default")


def variable(field: str, prefix: str = PREFIX) -> str:
    """Return the environment variable of a field: of yours or the platform's, unless a feature's prefix is given."""
    return prefix + field.upper()


def traces_wanted() -> bool:
    """Return whether OpenTelemetry's variables ask for traces; its SDK reads the others itself."""
    return bool(os.environ.get(TRACES)) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def _secrets_directory() -> str | None:
    """Return where the files of secrets are, as the environment or `.env` says, in whatever case, as settings are."""
    given = chain(os.environ.items(), dotenv_values(ENV_FILE).items())
    return next((value for name, value in given if value and name.upper() == SECRETS_DIR), None)


def _readable_directory() -> str | None:
    """Return the directory of secrets; raises SettingsError where a source cannot be read as a whole."""
    if unread := [*_unread_variables(), *_unread_lines(), *_unread_secrets()]:
        raise SettingsError(unread)
    return _secrets_directory()


def _unread_variables() -> Iterator[str]:
    """Yield a sentence for each variable whose bytes are no text: no document could show it."""
    for name, value in os.environ.items():
        if name.upper().startswith(PREFIX):
            try:
                value.encode()
            except UnicodeEncodeError:
                yield f"{name}: is not UTF-8"


def _unread_lines() -> Iterator[str]:
    """Yield a sentence for each line of `.env` that cannot be read: its setting would be lost in silence."""
    file = Path(ENV_FILE)
    if not file.exists():
        return
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        yield f"{ENV_FILE}: cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        yield f"{ENV_FILE}:{line}: is not UTF-8; save the file in that encoding"
    else:
        if text.startswith(MARK):
            yield f"{ENV_FILE}:1: begins with a byte order mark, as a part of the first name; save the file without it"
        known, given = set(os.environ), {name.upper() for name, value in os.environ.items() if value}
        for binding in parse_stream(io.StringIO(text)):
            read = binding.original.string
            line = binding.original.line + read[: len(read) - len(read.lstrip())].count("\n")
            if binding.error:
                yield f"{ENV_FILE}:{line}: cannot be read; write NAME=value, and close each quote"
            elif (
                (key := (binding.key or "").upper()).startswith(PREFIX)
                and key not in given  # the environment wins
                and _loses(binding.value or "", known)
            ):
                # not which name, as that may be a part of a password
                yield f"{ENV_FILE}:{line}: {key} holds the ${{}} of a name that is set nowhere; {WHERE_ELSE}"
            known.add(binding.key or "")


def _loses(value: str, known: Container[str]) -> bool:
    """Return whether a value of `.env` refers to a name without value and default, which would be left out."""
    parts = parse_variables(value)
    return any(isinstance(part, Variable) and part.default is None and part.name not in known for part in parts)


def _unread_secrets() -> Iterator[str]:
    """Yield a sentence for the directory of secrets, or each file in it, that cannot be read."""
    with contextlib.suppress(UnicodeDecodeError):  # of `.env`, which has its own sentence
        directory = _secrets_directory()
        try:
            if directory and not Path(directory).is_dir():
                yield f"{SECRETS_DIR}: {directory!r} is not a directory"
            elif directory:
                files = sorted(path for path in Path(directory).iterdir() if path.name.upper().startswith(PREFIX))
                yield from (f"{SECRETS_DIR}: {path}: {why}" for path in files if (why := _unreadable(path)))
        except OSError as error:
            yield f"{SECRETS_DIR}: {directory!r} cannot be read: {error.strerror}"


def _unreadable(path: Path) -> str:
    try:
        read_secret(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except SecretUnreadable as error:
        return str(error)
    return ""


def _given(directory: str | None) -> dict[str, str]:
    """Return every `SERVICE_*` name that has a value, upper-case, with the source that wins."""
    sources = {
        f"file in {SECRETS_DIR}": [path.name for path in Path(directory).iterdir()] if directory else [],
        ENV_FILE: [name for name, value in dotenv_values(ENV_FILE).items() if value],
        "environment": [name for name, value in os.environ.items() if value],
    }
    given = ((name.upper(), source) for source, names in sources.items() for name in names)
    return {name: source for name, source in given if name.startswith(PREFIX) and name != SECRETS_DIR}
