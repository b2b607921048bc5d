"""Compiled twins of the hot paths; each has a pure twin in `engine` that is always there."""
