"""The seams at which the platform reaches into other packages, and the check that they are as it knows them.

A subclass that overrides a private method, or a call of one, does its work only while the other package keeps it. So
each package of the platform lists what it relies on, and the start compares: a method that is gone, takes other
parameters, or a constructor that no longer sets an attribute stops the start with one sentence. A version that has not
been tried but whose seams fit is a warning, so that a security release needs no edit here.
"""

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import CodeType
from typing import Any


class SeamsError(Exception):
    """An installed package is not as the platform needs it; the message names each seam that does not fit."""


@dataclass(frozen=True, slots=True)
class Seam:
    """Something of another package: `module:name`, with the names of its parameters where it is called or overridden.

    `sets` are attributes that its code must set or use, such as those that an `__init__` gives its object.
    """

    where: str
    takes: str | None = None
    sets: tuple[str, ...] = ()


def check_seams(seams: Iterable[Seam]) -> None:
    """Raise SeamsError, in one sentence, when any of them does not fit."""
    wrong = [problem for seam in seams for problem in _problems(seam)]
    if wrong:
        raise SeamsError(
            f"the installed packages do not fit: {'; '.join(wrong)} (see service/platform/server/README.md)"
        )


def untried(tried: Mapping[str, str]) -> dict[str, str]:
    """Return the installed version of each package that the platform's tests have not run with."""
    return {name: found for name, wanted in tried.items() if (found := _version(name)) != wanted}


def _problems(seam: Seam) -> Iterator[str]:
    try:
        found = _resolve(seam.where)
    except (ImportError, AttributeError):
        yield f"{seam.where} is missing"
        return
    if seam.takes is not None and (takes := _parameters(found)) != seam.takes:
        yield f"{seam.where} takes ({takes}), not ({seam.takes})"
    missing = [name for name in seam.sets if name not in _names(found)]
    if missing:
        yield f"{seam.where} does not set {', '.join(missing)}"


def _resolve(where: str) -> Any:
    module, _, path = where.partition(":")
    found = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _parameters(function: Any) -> str:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return "?"
    return ", ".join(str(one.replace(annotation=one.empty, default=one.empty)) for one in parameters)


def _names(function: Any) -> set[str]:
    """Return the attributes that a function names, those of the constructors that it may call included."""
    if inspect.isclass(function):
        return {name for kind in function.__mro__ for name in [*vars(kind), *_names(vars(kind).get("__init__"))]}
    code: CodeType | None = getattr(function, "__code__", None)
    return set(code.co_names) if code is not None else set()


@functools.cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
