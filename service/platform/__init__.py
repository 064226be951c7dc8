"""The platform: everything that makes the promise. It comes with updates; read it, and change it only on purpose.

Imports nothing of `service` outside itself. A feature uses what the `__init__` of each package names, `calls`, `errors`
and `feature`. From below: name; declarations, settings, errors, failures, lifecycle, listener, looks, seams; telemetry;
calls, database, server; jobs, identity; feature; http; inside; process; reload; client; verbs; testing. Start reading
at process/main.py: the life of the process, top to bottom.
"""
