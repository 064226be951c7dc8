"""The platform: everything that makes the promise. It comes with updates; read it, and change it only on purpose.

Imports nothing of `service` outside itself. A feature uses what the `__init__` of each package names, `errors` and
`feature`. From below: settings, errors, lifecycle; telemetry; database, server; feature; http; inside; process; client,
verbs. Start reading at process/main.py: the life of the process, top to bottom.
"""
