"""The process: its first moment (start.py), its life (main.py), its last (end.py), the one CPU it keeps to, and a client (asked.py)."""
