"""The sample feature: a chat that loses nothing. Removable."""
