"""A live session: configuration, startup, turns, context."""
