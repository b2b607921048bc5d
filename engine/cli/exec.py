"""`engine exec`: one turn without a person at hand. Maps everything that can happen to stderr lines and exit codes."""

from __future__ import annotations

import os
import time

from engine.cli.exec_arguments import ExecArguments
from engine.cli.preparation import Refused, prepare
from engine.cli.streams import OutputClosed, Stderr, Stdin, Stdout
from engine.errors import EngineError, SessionStartError, ThreadNotFound
from engine.telemetry.trace import TraceRecorder

__all__ = ["run_exec"]


def run_exec(arguments: ExecArguments, began: float) -> int:
    """Runs the command and returns its exit code (app_server.md 6.5). `began`: when the program's own code started."""
    trace = TraceRecorder(began)
    trace.add("import the command", began, time.perf_counter())
    stderr = Stderr()
    try:
        with trace.span("configuration and prompt"):
            plan = prepare(arguments, Stdin(), os.environ, stderr.line)
        with trace.span("import the engine"):
            from engine.cli.logs import show_logs
            from engine.cli.turn import run_turn

        show_logs(stderr, debug=os.environ.get("ENGINE_DEBUG", "") not in ("", "0"))
        return run_turn(plan, Stdout(), stderr, trace)
    except Refused as exc:
        stderr.line(str(exc))
    except OutputClosed:
        pass
    except KeyboardInterrupt:
        pass  # before the session started; after that signals are requests
    except EngineError as exc:
        stderr.line(_error_text(exc))
    except Exception as exc:
        if os.environ.get("ENGINE_DEBUG", "") not in ("", "0"):
            raise
        stderr.line(
            f"Error: internal error: {type(exc).__name__}: {exc}. This is a bug in the engine; what was recorded is "
            "kept. Please run again with ENGINE_DEBUG=1 and report the traceback it prints."
        )
    return 1


def _error_text(exc: EngineError) -> str:
    cause = exc.cause if isinstance(exc, SessionStartError) else exc
    if isinstance(cause, ThreadNotFound):
        # The other program's words, with its empty line: callers look for them.
        return (
            f"Error: thread/resume: thread/resume failed: no rollout found for thread id {cause.thread} (code -32600)\n"
        )
    notes = getattr(exc, "__notes__", ())
    return "\n".join([f"Error: {exc}", *notes])
