"""What a session may touch - pure functions over a view of the disk."""
