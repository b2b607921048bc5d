"""Replaces a long history by a short one: when, by whose summary, and what stays (session.md 4.9-4.10)."""
