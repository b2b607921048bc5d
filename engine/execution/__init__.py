"""Processes, ptys, shells and the supervisor that owns every process of an engine."""
