"""The argument parser of all commands: how a mistake is told, and how help looks. Imports nothing but the parser."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

__all__ = ["BEFORE_ONLY", "Parser", "Usage", "formatter"]

# Flags of `exec` that must stand before a subcommand; everything else is accepted after it as well.
BEFORE_ONLY = ("-s", "--sandbox", "-C", "--cd", "--add-dir", "-p", "--profile", "--output-schema", "--thread-source")


class Usage(Exception):
    """The words make no sense; `text` goes to stderr and the exit code is 2."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class Parser(argparse.ArgumentParser):
    """Raises `Usage` instead of ending the process."""

    def format_help(self) -> str:
        # The value must be glued on with `=`, which the parser has no notation for.
        return super().format_help().replace("--trace-startup FILE ", "--trace-startup[=FILE]", 1)

    def error(self, message: str) -> NoReturn:
        raise Usage(f"error: {message}{_hint(message)}\n\n{self.format_usage()}\nFor more information, try '--help'.\n")


def _hint(message: str) -> str:
    match = re.search(r"unrecognized arguments: (-[-\w]+)", message)
    if match and match[1] in BEFORE_ONLY:
        return f"\n\n  tip: put `{match[1]}` before the subcommand: engine exec {match[1]} ... resume ..."
    return ""


def formatter(prog: str) -> argparse.HelpFormatter:
    """Descriptions as they are written, in columns that fit."""
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=34, width=110)
