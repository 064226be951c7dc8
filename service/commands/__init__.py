"""The verbs of the command line: a module each. They print; what they print is meant for people."""
