"""A client of the real program's app-server over stdio, made for timing: one process, JSON lines both ways, on Trio.

A reply is stamped when the read that brought its last byte returned; decoding it comes after and is in no figure.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import trio

from benchmarks.measures import anonymous_memory

__all__ = ["AppServer", "Message", "PeerError", "Reply", "find_peer", "open_app_server"]

Message = dict[str, object]
PATIENCE = 60.0  # seconds until a peer that does not answer is an error
CLIENT = {"name": "bench", "title": "bench", "version": "0"}


class PeerError(Exception):
    """The peer answered with an error, not at all, or not what was asked for."""


def find_peer(path: str | None) -> Path | None:
    """The real binary: the one named, else the one installed with the extra `conformance`, else `None`."""
    if path is not None:
        found = Path(path).absolute()
        if not found.is_file():
            raise PeerError(f"there is no binary at {path}")
        return found
    spec = importlib.util.find_spec("codex_cli_bin")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "codex"
    return binary if binary.is_file() else None


class Reply:
    """The answer to one request, once it is there. Times in seconds of the monotonic clock."""

    def __init__(self, wanted: Callable[[Message], bool]) -> None:
        self.wanted = wanted
        self.sent = time.monotonic()
        self.arrived = 0.0
        self.message: Message = {}
        self._there = trio.Event()

    @property
    def ms(self) -> float:
        """Milliseconds from sending to arrival."""
        return (self.arrived - self.sent) * 1000

    def settle(self, message: Message, arrived: float) -> None:
        """The message is there, or (an empty one) will never be."""
        self.message, self.arrived = message, arrived
        self._there.set()

    async def wait(self) -> Message:
        """The `result` of the reply or the `params` of the notification. Raises `PeerError`."""
        with trio.move_on_after(PATIENCE) as scope:
            await self._there.wait()
        if scope.cancelled_caught:
            raise PeerError(f"the peer did not answer within {PATIENCE:g} s")
        if not self.message:
            raise PeerError("the peer ended before it answered")
        if "error" in self.message:
            raise PeerError(f"the peer answered {json.dumps(self.message['error'])[:500]}")
        found = self.message.get("result", self.message.get("params"))
        assert isinstance(found, dict)
        return found


class AppServer:
    """A running app-server. Requests may overlap."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._replies: list[Reply] = []
        self._number = 0

    async def send(self, method: str, params: Mapping[str, object]) -> Reply:
        """Sends a request; wait on what it returns."""
        self._number += 1
        number = self._number
        line = json.dumps({"id": number, "method": method, "params": params}).encode() + b"\n"
        reply = Reply(lambda message: message.get("id") == number and "method" not in message)
        self._replies.append(reply)
        await self._write(line)
        return reply

    async def call(self, method: str, params: Mapping[str, object]) -> tuple[Message, Reply]:
        """Sends a request and waits for its result. Raises `PeerError`."""
        reply = await self.send(method, params)
        return await reply.wait(), reply

    def expect(self, method: str, **where: object) -> Reply:
        """The next notification of `method` whose params have these values; ask before what causes it is sent."""

        def wanted(message: Message) -> bool:
            params = message.get("params")
            if message.get("method") != method or not isinstance(params, dict):
                return False
            return all(params.get(name) == value for name, value in where.items())

        reply = Reply(wanted)
        self._replies.append(reply)
        return reply

    async def initialize(self) -> None:
        """The handshake."""
        await self.call("initialize", {"clientInfo": CLIENT, "capabilities": {"experimentalApi": True}})
        await self._write(b'{"method":"initialized"}\n')

    async def start_thread(
        self, cwd: Path, *, ephemeral: bool = False, sandbox: str | None = None
    ) -> tuple[str, Reply]:
        """A new thread: its id, and the reply with its times. `sandbox` in place of the configured mode."""
        params: dict[str, object] = {"cwd": str(cwd), "ephemeral": ephemeral}
        if sandbox is not None:
            params["sandbox"] = sandbox
        result, reply = await self.call("thread/start", params)
        thread = result["thread"]
        assert isinstance(thread, dict)
        return str(thread["id"]), reply

    async def run_turn(self, thread: str, text: str) -> tuple[float, float]:
        """A whole turn; returns when its input was sent and when it was reported complete."""
        over = self.expect("turn/completed", threadId=thread)
        begun = await self.send("turn/start", {"threadId": thread, "input": [{"type": "text", "text": text}]})
        await begun.wait()
        params = await over.wait()
        turn = params["turn"]
        assert isinstance(turn, dict)
        if turn["status"] != "completed":
            raise PeerError(f"the turn ended as {turn['status']}: {turn.get('error')}")
        return begun.sent, over.arrived

    def memory(self) -> int:
        """Bytes of anonymous resident memory."""
        return anonymous_memory(self.process.pid)

    async def read(self) -> None:
        """Reads what the peer says until it ends."""
        assert self.process.stdout is not None
        rest = b""
        async for chunk in self.process.stdout:
            arrived = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    self._take(json.loads(line), arrived)
        for reply in self._replies:
            reply.settle({}, time.monotonic())
        self._replies.clear()

    def _take(self, message: Message, arrived: float) -> None:
        for reply in self._replies:
            if reply.wanted(message):
                self._replies.remove(reply)
                reply.settle(message, arrived)
                return

    async def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send_all(line)
        except trio.BrokenResourceError as exc:
            raise PeerError("the peer ended") from exc


@asynccontextmanager
async def open_app_server(binary: Path, environment: Mapping[str, str], cwd: Path) -> AsyncIterator[AppServer]:
    """An app-server for the length of a block; what it prints to stderr is dropped. It ends with its stdin."""
    process = await trio.lowlevel.open_process(
        [str(binary), "app-server"], stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=dict(environment), cwd=cwd
    )
    peer = AppServer(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.read)
            try:
                yield peer
            finally:
                assert process.stdin is not None
                with trio.move_on_after(5, shield=True) as patience:
                    await process.stdin.aclose()
                    await process.wait()
                if patience.cancelled_caught:
                    process.kill()
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
