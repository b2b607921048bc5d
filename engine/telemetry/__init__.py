"""Spans and the startup trace."""
