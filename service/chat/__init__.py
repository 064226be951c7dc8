"""The sample feature: a chat that loses nothing, over any number of replicas. Start reading at routes.py."""

from service.chat.routes import open_chat

__all__ = ["open_chat"]
