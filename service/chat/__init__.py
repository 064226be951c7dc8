"""The sample: a chat that loses nothing, over any number of replicas. README.md follows a message; start at routes.py.

Everything of it is in this folder, in tests/chat and in its migration; lines elsewhere are marked `sample`.
"""

from service.platform.feature import Feature

CHAT = Feature(
    "chat",
    open="service.chat.routes:open_chat",
    settings="service.chat.settings:ChatSettings",
    jobs=("service.chat.janitor:sweep_old_messages",),
    verbs="service.chat.verbs",
    load="service.chat.client.load",
    smoke="service.chat.client.smoke",
)
