"""`engine execpolicy check`: what rules files say of a command (tools.md 5.4)."""

from __future__ import annotations

import json
import sys

from engine.cli.arguments import ExecPolicyCheckArguments
from engine.exec_policy.errors import RulesError
from engine.exec_policy.loading import load_set, read_rules_text

__all__ = ["check"]


def check(arguments: ExecPolicyCheckArguments) -> int:
    """Prints the matches and the decision as JSON; the first broken file is an error. Returns the exit code."""
    try:
        policy = load_set(map(read_rules_text, arguments.rules))
    except RulesError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1
    found = policy.check([arguments.command], resolve_host_executables=arguments.resolve_host_executables)
    if arguments.pretty:
        text = json.dumps(found.to_json(), indent=2, ensure_ascii=False)
    else:
        text = json.dumps(found.to_json(), separators=(",", ":"), ensure_ascii=False)
    # Words that are no text come back as the bytes they were.
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.buffer.flush()
    return 0
