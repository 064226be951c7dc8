"""What a feature is given, and what a feature is.

A feature is a scope: an async context manager that takes Resources and yields its routes. What it opens before the
yield is up before the first request; what it closes after it is gone before the database closes.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from quart import Blueprint

from service.database import Database
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.server import RateLimits
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Resources:
    """What main has opened, for features to use and not to close."""

    settings: Settings
    lifecycle: Lifecycle
    database: Database
    metrics: Metrics  # a feature adds its own; their names start with the feature's
    limits: RateLimits  # of each client address; whoever lets a client do more than ask takes a token


type Feature = Callable[[Resources], AbstractAsyncContextManager[Blueprint]]
