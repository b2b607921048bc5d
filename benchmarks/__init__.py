"""Benchmarks: one file per question, this program beside the real binary in the same run; see docs/benchmarks.md."""
