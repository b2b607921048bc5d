"""Attempts to get out of the sandbox, as root and as an unprivileged user; the host must stay as it was."""
