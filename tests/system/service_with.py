"""`python -m tests.system.service_with NAME...`: `service serve`, but with features of tests/features.py."""

import sys

import service.__main__ as line
from tests import features

if __name__ == "__main__":
    settings, origins = line.load_or_exit()
    line.prepare_logs(settings)
    line.process(settings, origins, features=[getattr(features, name) for name in sys.argv[1:]])
