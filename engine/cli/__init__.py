"""The command line: `engine exec`, `engine models serve-scripted` (app_server.md 6)."""
