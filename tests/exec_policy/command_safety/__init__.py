"""Harmless and destructive commands."""
