"""The command line: exec, models, version."""
