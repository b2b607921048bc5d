"""A command that runs to its end: `shell_command`, the user's `!` command, checks of our own (tools.md 3.2, 3.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import attrs
import trio

from engine.execution.output import DELTA_CAP, MAX_DELTAS, HeadBuffer, aggregate, decode_lossy
from engine.execution.process import ExtraFiles, OutputStream
from engine.execution.supervisor import Supervisor
from engine.records import frozen

__all__ = ["DEFAULT_TIMEOUT_MS", "USER_SHELL_TIMEOUT_MS", "CommandResult", "OnOutput", "run_command"]

DEFAULT_TIMEOUT_MS = 10_000
USER_SHELL_TIMEOUT_MS = 3_600_000  # of a `!` command
TIMEOUT_EXIT_CODE = 124
# Upper bounds: end of output ends the wait at once.
READER_GRACE_S = 2.0  # for output that others still write after the command's exit
DRAIN_GRACE_S = 0.25  # for what is left in the pipes when nobody is left to write

OnOutput = Callable[[Literal["stdout", "stderr"], bytes], None]


@frozen
class CommandResult:
    """How a command ended. `exit_code` is 124 after a timeout and 128 + `signal` for one killed by a signal.

    `stdout` and `stderr` hold the first MiB of each.
    """

    exit_code: int
    signal: int | None
    timed_out: bool
    duration_s: float
    stdout: bytes = attrs.field(repr=False)
    stderr: bytes = attrs.field(repr=False)

    @property
    def stdout_text(self) -> str:
        return decode_lossy(self.stdout)

    @property
    def stderr_text(self) -> str:
        return decode_lossy(self.stderr)

    @property
    def aggregated_text(self) -> str:
        """stdout then stderr, 1 MiB together."""
        return decode_lossy(aggregate(self.stdout, self.stderr))


@trio.lowlevel.enable_ki_protection  # between `spawn` and `async with` the process would be nobody's
async def run_command(
    supervisor: Supervisor,
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    timeout_ms: int | None = DEFAULT_TIMEOUT_MS,
    on_output: OnOutput | None = None,
    files: ExtraFiles | None = None,
) -> CommandResult:
    """Run a command without input to its end. Nothing of its tree is left when this returns or raises.

    `on_output` is called with each read (at most 8192 bytes, as it came) up to 10,000 times per stream. Background
    processes that hold the output open are waited for 2 s after the command's exit, then killed. `files` go to
    `Supervisor.spawn`.

    Raises `SpawnError`/`ProcessError`, and what `on_output` raises. Cancellation kills the tree (shielded, ms).
    """
    started = trio.current_time()
    stdout, stderr = HeadBuffer(), HeadBuffer()
    failure: Exception | None = None
    timed_out = False

    async def read(name: Literal["stdout", "stderr"], stream: OutputStream, buffer: HeadBuffer) -> None:
        nonlocal failure
        emitted = 0
        try:
            while data := await stream.receive_some(DELTA_CAP):
                buffer.append(data)
                if on_output is not None and emitted < MAX_DELTAS:
                    emitted += 1
                    on_output(name, data)
        except Exception as exc:
            failure = failure or exc
            command.cancel()

    async def read_both() -> None:
        assert process.stderr is not None
        async with trio.open_nursery() as both:
            both.start_soon(read, "stderr", process.stderr, stderr)
            await read("stdout", process.stdout, stdout)
        finished.set()

    finished = trio.Event()
    async with await supervisor.spawn(argv, cwd=cwd, env=env, files=files) as process:  # Ctrl-C has no gap here
        with trio.CancelScope() as command:
            async with trio.open_nursery() as readers:
                readers.start_soon(read_both)
                try:
                    with trio.move_on_after(trio_seconds(timeout_ms)) as patience:
                        await process.wait()
                    timed_out = patience.cancelled_caught
                    if timed_out:
                        await process.kill_tree()
                    with trio.move_on_after(READER_GRACE_S):
                        await finished.wait()
                    await process.kill_tree()
                    with trio.move_on_after(DRAIN_GRACE_S):
                        await finished.wait()
                except Exception as exc:  # the supervisor died
                    failure = failure or exc
                readers.cancel_scope.cancel()
    if failure is not None:
        raise failure
    status = process.status
    return CommandResult(
        exit_code=TIMEOUT_EXIT_CODE if timed_out or status is None else status.returncode,
        signal=None if timed_out or status is None else status.signal,
        timed_out=timed_out,
        duration_s=trio.current_time() - started,
        stdout=stdout.value(),
        stderr=stderr.value(),
    )


def trio_seconds(milliseconds: int | None) -> float:
    return float("inf") if milliseconds is None else milliseconds / 1000
