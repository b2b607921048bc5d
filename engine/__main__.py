"""`engine` and `python -m engine`: the command line, quiet on Ctrl-C from its first import on."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Runs the command line of this process; returns its exit code."""
    try:
        from engine.cli.main import main as run

        return run()
    except KeyboardInterrupt:  # before a command listens for signals itself, or where it needs no more than to end
        return 1


if __name__ == "__main__":
    sys.exit(main())
