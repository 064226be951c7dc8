"""The table of contents: one line per feature. They open in this order and close in the reverse one.

Of two that serve the same path the first keeps it.
"""

from service.chat import open_chat  # sample
from service.hello import open_hello
from service.resources import Feature

FEATURES: tuple[Feature, ...] = (
    # a line for each, also when it is the only one
    open_chat,  # sample
    open_hello,
)
