"""The process: its first moment (start.py), its life (main.py), its last (end.py), and the one CPU it keeps to.

A client's whole life is in asked.py.
"""
