"""Sweeps: a start, a turn, a stop, run once per point where a task can be parked, with something done at that point."""
