"""Yours: the settings of this service, on top of the platform's. A feature's own settings lie with the feature.

Add a field, and run `make generate`, which writes it into the README, `.env.example` and the chart:

    greeting: str = Field("hello", description="What the service says first.")

A feature reads it as `resources.settings.of(Settings).greeting`; its variable is SERVICE_GREETING.
"""

from service.platform.settings import PlatformSettings


class Settings(PlatformSettings):
    """What your service can be told."""
