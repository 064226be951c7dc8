"""Clients of the chat: the terminal's, and its parts of `service load` and `service smoke`."""
