"""The same small application on each stack; `python -m bench.apps.NAME` prints its port and serves."""
