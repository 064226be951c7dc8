"""What a job is: a function, what it may be called with, and how it is repeated. Declaring does nothing else.

A job is named after its function, and its arguments are JSON: both outlive the release that enqueued it. So a job whose
function is renamed says `name`, and one whose argument is renamed says `renamed`; a new argument needs a default,
which is that of the release that runs the job.
"""

import inspect
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Concatenate, Self, get_type_hints, overload

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticSerializationError
from sqlalchemy import Connection

from service.platform.database import Database
from service.platform.jobs.options import Options, Priority
from service.platform.jobs.schedule import EPOCH, Cron, Every, Schedule
from service.platform.settings import PlatformSettings

MOST_BYTES = 65_536  # of a job's arguments as JSON: what is larger belongs into a table of yours
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 3_600.0  # seconds before a repeat; doubled each time, and spread by a quarter
UTC = "UTC"
_NAME = re.compile(r"[a-z][a-z0-9_.]{0,62}")
_NUL = re.compile(r"(?<!\\)(\\\\)*\\u0000")  # as JSON writes it; behind an escaped backslash it is five characters
_MASK = "*" * 10  # what pydantic writes for a secret, in JSON and in its repr
_SECRET = re.compile(rf"\bSecret\w*\(b?'{re.escape(_MASK)}'\)")


class JobsTwice(ValueError):
    """Two jobs have one name, so it is not known which of them a stored one is."""


class ArgumentsWrong(ValueError):
    """A job was given what its function does not take; the message names the job, the argument and what is right."""


class StoredArgumentsWrong(ArgumentsWrong):
    """What another release has stored does not fit the job's function as it is here, which was not called."""


@dataclass(frozen=True, slots=True)
class JobContext:
    """What an async job is given. Of its effects outside, each should carry `key`: it is the same at each attempt."""

    key: str
    attempt: int  # 1 at the first
    database: Database
    settings: PlatformSettings


@dataclass(frozen=True, eq=False)
class Job[**P]:
    """A declared job. It is made by `job`, and enqueued by `enqueue`."""

    function: Callable[..., Any]
    name: str
    retries: int
    deadline: float
    concurrency: int | None
    schedule: Schedule | None
    model: type[BaseModel]
    options: Options = field(default_factory=Options)

    @cached_property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def __call__(self, first: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself, as tests do."""
        return self.function(first, *args, **kwargs)

    def with_options(
        self,
        *,
        priority: Priority = "normal",
        delay: float = 0.0,
        at: datetime | None = None,
        key: str | None = None,
    ) -> Self:
        """Return the job to be enqueued otherwise than usual. Raises ValueError.

        `delay` seconds from now, or not before `at`. Under a `key` at most one job of a kind waits: enqueueing another
        gives the waiting one the newer arguments and the earlier time. One that runs already does not count, as it may
        have read what has changed since.
        """
        return replace(self, options=Options(priority, delay, at, key))

    def dump(self, given: Mapping[str, Any]) -> str:
        """Return arguments as JSON from which `load` makes them again. Raises ArgumentsWrong.

        Those that are not given are looked at, and not stored: the release before may not know them.
        """
        try:
            taken = self.model.model_validate(dict(given), strict=True)
            text = taken.model_dump_json(by_alias=False)
        except ValidationError as error:
            raise ArgumentsWrong(self._explained(error)) from None
        except PydanticSerializationError as error:
            reason = str(error).removeprefix("Error serializing to JSON: ")
            raise ArgumentsWrong(f"job {self.name}: its arguments have no JSON: {reason}") from None
        if len(text.encode()) > MOST_BYTES:
            raise ArgumentsWrong(f"job {self.name}: its arguments are over {MOST_BYTES} bytes; put them into a table")
        if _NUL.search(text):
            raise ArgumentsWrong(f"job {self.name}: its arguments must not hold NUL, which PostgreSQL does not store")
        try:
            self.model.model_validate_json(text)
        except ValidationError as error:  # a number that is none, a name that differs on the way back, a wrong default
            raise ArgumentsWrong(self._explained(error, ", in JSON")) from None
        if _MASK in text and (secret := next((name for name, value in taken if _SECRET.search(repr(value))), "")):
            reason = f"a secret is not stored, so {secret} would come back as asterisks; give its name, or its row's id"
            raise ArgumentsWrong(f"job {self.name}: {reason}")
        fields = self.model.model_fields  # what a factory makes is made once, for every attempt
        left_out = {one for one in fields.keys() - taken.model_fields_set if fields[one].default_factory is None}
        return taken.model_dump_json(by_alias=False, exclude=left_out) if left_out else text

    def dump_turn(self, turn: datetime) -> str:
        """Return the arguments of a scheduled one. Raises ArgumentsWrong."""
        return self.dump({"turn": turn} if "turn" in self.model.model_fields else {})

    def load(self, stored: str) -> dict[str, Any]:
        """Return the arguments from JSON that this release or an older one has stored. Raises StoredArgumentsWrong."""
        try:
            parsed = self.model.model_validate_json(stored)
        except ValidationError as error:
            raise StoredArgumentsWrong(self._explained(error)) from None
        return parsed.__dict__

    def pause(self, failures: int) -> float:
        """Return how many seconds to wait before the next attempt, after so many failed ones."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))
        return pause * random.uniform(0.75, 1.25)  # noqa: S311  spreads repeats, keeps no secret

    def _explained(self, error: ValidationError, where_from: str = "") -> str:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "arguments"
        takes = ", ".join(self.model.model_fields) or "none"
        return f"job {self.name}: {where}: {first['msg']}{where_from}; it takes: {takes}"


type _SQLJob[**P] = Callable[Concatenate[Connection, P], None]
type _AsyncJob[**P] = Callable[Concatenate[JobContext, P], Awaitable[None]]


class _Decorator:
    """What `job(…)` returns: takes a function of a Connection, or an async one of a JobContext."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    @overload
    def __call__[**P](self, function: _AsyncJob[P]) -> Job[P]: ...
    @overload
    def __call__[**P](self, function: _SQLJob[P]) -> Job[P]: ...
    def __call__(self, function: Callable[..., Any]) -> Job[...]:
        return _declare(function, **self._options)


def job(
    *,
    retries: int = 8,
    deadline: float = 30.0,
    concurrency: int | None = None,
    every: float | None = None,
    cron: str | None = None,
    zone: str = UTC,
    name: str | None = None,
    renamed: Mapping[str, str] = {},
) -> _Decorator:
    """Declare a job: a plain function of a Connection, or an async one of a JobContext; other arguments by keyword.

    A plain function is SQL only, and its writes are committed together with the job's end, or not at all. An async one
    may do anything, and may do it more than once.

    `retries` (0 to 100) is how often it is repeated after a failure; then it is dead, and stays to be looked at.
    `deadline` (seconds, to 86,400) is for one attempt. `concurrency` is how many of it run at once in the whole
    cluster; None, as many as there are workers. With `every` (seconds) or `cron` (five fields, in a time zone) it is
    scheduled, and may take `turn: datetime`. `renamed` has new names of arguments and the old ones.

    Raises ValueError for what is out of range, and TypeError for a function of another shape.
    """
    if not 0 <= retries <= 100:
        raise ValueError(f"retries: must be from 0 to 100, not {retries!r}")
    if not 0.1 <= deadline <= 86_400:
        raise ValueError(f"deadline: must be from 0.1 to 86400 seconds, not {deadline!r}")
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency: must be 1 or more, not {concurrency!r}")
    if every is not None and cron is not None:
        raise ValueError("cron: must not be given together with `every`")
    if cron is None and zone != UTC:
        raise ValueError("zone: is for `cron`, which is not given")
    schedule = Every(every) if every is not None else Cron(cron, zone) if cron is not None else None
    return _Decorator(
        retries=retries, deadline=deadline, concurrency=concurrency, schedule=schedule, name=name, renamed=renamed
    )


def refuse_twins(kinds: Iterable[Job[...]]) -> None:
    """Raise JobsTwice when two have the same name."""
    seen: dict[str, Job[...]] = {}
    for one in kinds:
        if (other := seen.setdefault(one.name, one)) is not one:
            places = " and ".join(f"{each.function.__module__}.{each.function.__qualname__}" for each in (other, one))
            raise JobsTwice(f"job {one.name}: {places} have the same name; give one of them another, `@job(name=…)`")


def refuse_unrun(kind: Job[...], returned: object) -> None:
    """Raise TypeError for a coroutine: a decorator hid that the function is async, and nothing of it has run."""
    if inspect.iscoroutine(returned):
        returned.close()
        raise TypeError(
            f"job {kind.name}: returned a coroutine, which nobody awaits: what decorates it must be async too"
        )


def _declare(
    function: Callable[..., Any],
    *,
    name: str | None,
    schedule: Schedule | None,
    renamed: Mapping[str, str],
    **rest: Any,
) -> Job[...]:
    name = name or function.__name__
    if not _NAME.fullmatch(name):
        raise ValueError(f"job {name}: its name must be a-z, 0-9, _ and ., from a letter on, and 63 characters at most")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"job {name}: must not yield: nobody would run it")
    model = _model_of(function, name, renamed)
    required = [one for one, info in model.model_fields.items() if info.is_required() and one != "turn"]
    if schedule is not None and required:
        raise TypeError(f"job {name}: is scheduled, so nobody gives it {required[0]}; only `turn` may lack a default")
    declared: Job[...] = Job(function=function, name=name, schedule=schedule, model=model, **rest)
    if schedule is not None:
        try:
            declared.dump_turn(EPOCH)
        except ArgumentsWrong as error:  # at each turn, where no caller is told
            raise TypeError(str(error)) from None
    return declared


def _model_of(function: Callable[..., Any], name: str, renamed: Mapping[str, str]) -> type[BaseModel]:
    first, *rest = inspect.signature(function).parameters.values()
    hints = get_type_hints(function, include_extras=True)
    if first.kind not in {first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD}:
        raise TypeError(f"job {name}: must take a Connection, or a JobContext, as its first argument")
    fields: dict[str, Any] = {}
    for one in rest:
        if one.kind is not one.KEYWORD_ONLY:
            raise TypeError(f"job {name}: {one.name} must come after a `*`, as arguments are stored by their names")
        if one.name not in hints:
            raise TypeError(f"job {name}: {one.name} must have a type")
        default = ... if one.default is one.empty else one.default
        names = [one.name, *([renamed[one.name]] if one.name in renamed else [])]
        fields[one.name] = (hints[one.name], Field(default, validation_alias=AliasChoices(*names)))
    if unknown := sorted(renamed.keys() - fields.keys()):
        raise TypeError(f"job {name}: renamed: it takes no {unknown[0]}")
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
