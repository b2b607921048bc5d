"""Processes, shells and what belongs to them, with real processes."""
