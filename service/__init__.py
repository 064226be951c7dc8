"""Trireme. Start reading at main.py: the life of the process, top to bottom."""
