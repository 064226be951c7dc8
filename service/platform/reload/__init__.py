"""The loop of `service dev`: a parent that holds sockets and database, and a child for each state of the code.

The parent imports nothing of the service's own code, so that a save cannot break it. Holds what a developer needs while
the code changes; nothing here runs in production.
"""
