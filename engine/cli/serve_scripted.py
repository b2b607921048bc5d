"""`engine models serve-scripted`: a script as a Responses endpoint on loopback, until Ctrl-C."""

from __future__ import annotations

import sys

import trio

from engine.cli.arguments import ServeScriptedArguments
from engine.cli.signals import StopRequest, stop_on_signals
from engine.errors import ScriptError
from engine.models.scripted import ScriptedModel
from engine.models.serving import ScriptServer, serve_script

__all__ = ["serve_scripted"]


def serve_scripted(arguments: ServeScriptedArguments) -> int:
    """Serves until SIGINT or SIGTERM; prints the base URL on stdout once it listens. Returns the exit code."""
    try:
        model = ScriptedModel.from_file(arguments.script)
    except ScriptError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1
    with stop_on_signals() as stop:
        failure = trio.run(_serve, model, arguments.port, stop)
    if failure is not None:
        print(f"Error: can't listen on port {arguments.port}: {failure.strerror}", file=sys.stderr)
        return 1
    return 0


async def _serve(model: ScriptedModel, port: int, stop: StopRequest) -> OSError | None:
    stop.arm()
    failures: list[OSError] = []
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[ScriptServer | None]) -> None:
            try:
                await serve_script(model, port=port, task_status=task_status)
            except OSError as exc:
                failures.append(exc)
                task_status.started(None)

        server = await nursery.start(serve)
        if server is None:
            return failures[0]
        print(server.url, flush=True)
        await stop.wait()
        server.stop()
    return None
