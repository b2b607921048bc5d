"""A mock of the Responses API on loopback, as a process of its own: both sides of a benchmark talk to the same one.

Run as a program it serves `POST .../responses` and `GET .../models` with the standard library alone, one thread per
connection. It is told what to answer, and asked what it saw, by JSON lines on stdin and stdout; it ends with its stdin.

    {"port": 40123}                                             the first line it prints
    {"script": [{"say": "text"}, {"shell": "true"}]}   ->  {}   replaces the script and forgets the log
    {"log": true}                       ->  {"log": [{"received", "sent", "connection", "bytes", "exits"}, ...]}

Requests beyond the script are answered `ok`. Times are seconds of the system-wide monotonic clock: `received` when the
request was there to its last byte, `sent` when the answer was complete and about to be handed to the system. What lies
between is the mock's own doing and taken off the turn; sending a request and reading its answer is not.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Mock", "Served", "answer", "shell", "start_mock"]

Step = Mapping[str, str]
READ = 1 << 18
DELTAS = 4  # pieces a text arrives in
EXITED = (b"Process exited with code 0", b"Exit code: 0")  # what the shell tools tell the model


def answer(text: str = "The answer is forty-two.") -> Step:
    """A response that says `text`."""
    return {"say": text}


def shell(command: str) -> Step:
    """A response that calls `command`, through whichever shell tool the request offers."""
    return {"shell": command}


@dataclass(frozen=True)
class Served:
    """One request to the model. Times in seconds, see the module; `connection` tells reused ones apart.

    `bytes` is the size of its body, `exits` how many commands in its history ended with code 0.
    """

    received: float
    sent: float
    connection: int
    bytes: int
    exits: int

    @property
    def inside(self) -> float:
        """Seconds the request spent inside the mock."""
        return self.sent - self.received


class Mock:
    """The controlling end of a running mock. Calls block for well under a millisecond."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        port = self._read()["port"]
        assert isinstance(port, int)
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def script(self, *steps: Step) -> None:
        """Sets what the next requests are answered, and forgets the log."""
        self._ask({"script": list(steps)})

    def served(self) -> list[Served]:
        """The requests since the last script, in order of their answers; an answer that was received is among them."""
        entries = self._ask({"log": True})["log"]
        assert isinstance(entries, list)
        return [Served(**entry) for entry in entries]

    def _ask(self, question: object) -> dict[str, object]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the mock server ended with code {self._process.wait()}")
        found: dict[str, object] = json.loads(line)
        return found


@contextmanager
def start_mock() -> Iterator[Mock]:
    """A mock for the length of a block."""
    command = [sys.executable, "-I", "-S", __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Mock(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


# --- the program -----------------------------------------------------------------------------------


def response_events(step: Step, number: int, body: bytes) -> list[dict[str, object]]:
    """The events of one response."""
    response = {"id": f"resp-{number}"}
    events: list[dict[str, object]] = [{"type": "response.created", "response": response}]
    if "shell" in step:
        exec_command = b'"exec_command"' in body
        arguments = {"cmd" if exec_command else "command": step["shell"]}
        item: dict[str, object] = {
            "type": "function_call",
            "call_id": f"call-{number}",
            "name": "exec_command" if exec_command else "shell_command",
            "arguments": json.dumps(arguments),
        }
    else:
        text, item_id = step["say"], f"msg-{number}"
        item = {"type": "message", "role": "assistant", "id": item_id, "content": []}
        events.append({"type": "response.output_item.added", "output_index": 0, "item": item})
        size = -(-len(text) // DELTAS)
        for at in range(0, len(text), size):
            delta = {"type": "response.output_text.delta", "item_id": item_id, "output_index": 0, "content_index": 0}
            events.append({**delta, "delta": text[at : at + size]})
        item = {**item, "content": [{"type": "output_text", "text": text}]}
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15,
    }
    events.append({"type": "response.completed", "response": {**response, "usage": usage}})
    return events


class _State:
    """What the threads of all connections share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.steps: deque[Step] = deque()
        self.log: list[dict[str, object]] = []
        self.number = 0

    def script(self, steps: Sequence[Step]) -> None:
        with self.lock:
            self.steps = deque(steps)
            self.log = []

    def take(self) -> tuple[int, Step]:
        with self.lock:
            self.number += 1
            return self.number, self.steps.popleft() if self.steps else {"say": "ok"}


class _Connection:
    """One client connection: requests one after the other, until the client closes."""

    def __init__(self, state: _State, sock: socket.socket, ident: int) -> None:
        self._state = state
        self._socket = sock
        self._ident = ident
        self._data = b""

    def run(self) -> None:
        with self._socket:
            try:
                while self._one():
                    pass
            except OSError:
                pass  # the client went away

    def _one(self) -> bool:
        head = self._until(b"\r\n\r\n")
        if head is None:
            return False
        request, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = request.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._exactly(int(headers.get("content-length", "0")))
        received = time.monotonic()
        path = target.partition("?")[0]
        if method == "POST" and path.endswith("/responses"):
            self._respond(received, body)
        elif method == "GET" and path.endswith("/models"):
            model = {"id": "mock-model", "object": "model", "created": 0, "owned_by": "mock"}
            self._plain("200 OK", {"object": "list", "data": [model], "models": []})
        else:
            self._plain("404 Not Found", {"error": {"message": f"no such path: {method} {path}"}})
        return True

    def _respond(self, received: float, body: bytes) -> None:
        number, step = self._state.take()
        frames = [
            f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in response_events(step, number, body)
        ]
        data = "".join(frames).encode()
        data = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        )
        with self._state.lock:
            entry: dict[str, object] = {"received": received, "connection": self._ident, "bytes": len(body)}
            entry["exits"] = sum(body.count(text) for text in EXITED)
            entry["sent"] = time.monotonic()
            self._state.log.append(entry)
        self._socket.sendall(data)

    def _plain(self, status: str, body: object) -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        self._socket.sendall(head.encode() + data)

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._data:
            more = self._socket.recv(READ)
            if not more:
                return None
            self._data += more
        found, _, self._data = self._data.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        pieces, missing = [self._data], size - len(self._data)
        while missing > 0:
            piece = self._socket.recv(READ)
            if not piece:
                raise ConnectionError("the request body was cut")
            pieces.append(piece)
            missing -= len(piece)
        data = b"".join(pieces)
        self._data = data[size:]
        return data[:size]


def _accept(state: _State, listener: socket.socket) -> None:
    ident = 0
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ident += 1
        threading.Thread(target=_Connection(state, sock, ident).run, daemon=True).start()


def _main() -> None:
    state = _State()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    threading.Thread(target=_accept, args=(state, listener), daemon=True).start()
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "script" in question:
            state.script(question["script"])
            print("{}", flush=True)
        else:
            with state.lock:
                print(json.dumps({"log": state.log}), flush=True)


if __name__ == "__main__":
    _main()
