"""Commands that can touch only what their permissions allow (tools.md 6, permissions.md 10)."""
