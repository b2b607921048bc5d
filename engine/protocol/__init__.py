"""What a session says: ids, items, events, turn items, settings - pure data and its wire forms."""
