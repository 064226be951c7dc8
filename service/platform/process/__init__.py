"""The process: its first moment (start.py), its life (main.py), and the one CPU that it keeps to (one_cpu.py)."""
