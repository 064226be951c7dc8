"""The cookies of signing in.

Browsers take one of this prefix only when it is Secure, for this host alone and for all its paths.
"""

SESSION, PENDING = "__Host-session", "__Host-sign-in"
PENDING_SECONDS = 600  # for whoever has to find his password first
