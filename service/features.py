"""Yours: the table of contents, one line a feature. They open in this order and close in the reverse one.

Of two that serve the same path the first keeps it. What serves is named, not imported: `service --help` does without.
"""

from service.chat import CHAT  # sample
from service.platform.feature import Feature

FEATURES: tuple[Feature, ...] = (
    # a line for each, also when it is the only one
    CHAT,  # sample
    Feature("hello", open="service.hello:open_hello"),  # hello
)
