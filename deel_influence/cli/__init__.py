"""The command line: ``deel-influence``."""
