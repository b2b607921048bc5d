"""What a session leaves behind: line codec, scanner, persistence policy, reconstruction - pure over bytes."""
