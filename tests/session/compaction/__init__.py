"""The pure parts of compaction: estimates, and what takes the place of a history."""
