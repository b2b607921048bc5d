"""A small Responses endpoint on loopback that answers from a list, `compact` included: a server not of our making."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["MockResponses", "Reply", "message_reply", "serve_responses"]


@dataclass(frozen=True)
class Reply:
    """One answer: a stream of events (the text `"WAIT"` holds it), maybe cut; or a plain HTTP answer with a status."""

    events: Sequence[Mapping[str, Any] | str] = ()
    cut: bool = False
    status: int | None = None
    json: object = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Reply:
        """A `reply` of a recorded transcript."""
        return cls(
            events=reply.get("events", ()),
            cut=bool(reply.get("cut")),
            status=reply.get("status"),
            json=reply.get("json"),
            headers=reply.get("headers") or {},
        )


def message_reply(text: str, *, usage: Mapping[str, int] | None = None, number: int = 1) -> Reply:
    """An answer that says `text` and is done. `usage` has the keys of a `turn.completed` line."""
    usage = usage or {}
    item = {"type": "message", "role": "assistant", "id": f"msg_{number}", "phase": "final_answer"}
    incoming, outgoing = usage.get("input_tokens", 100), usage.get("output_tokens", 20)
    tokens = {
        "input_tokens": incoming,
        "input_tokens_details": {"cached_tokens": usage.get("cached_input_tokens", 10)},
        "output_tokens": outgoing,
        "output_tokens_details": {"reasoning_tokens": usage.get("reasoning_output_tokens", 5)},
        "total_tokens": incoming + outgoing,
    }
    return Reply(
        events=(
            {"type": "response.created", "response": {"id": f"resp_{number}"}},
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
            {"type": "response.output_text.delta", "item_id": item["id"], "output_index": 0, "content_index": 0}
            | {"delta": text},
            {
                "type": "response.output_item.done",
                "output_index": 0,
                "item": {**item, "content": [{"type": "output_text", "text": text, "annotations": []}]},
            },
            {"type": "response.completed", "response": {"id": f"resp_{number}", "usage": tokens}},
        )
    )


class MockResponses:
    """What the server did and will do. `requests` are the decoded bodies, in order of arrival."""

    def __init__(self, replies: Sequence[Reply]) -> None:
        self.replies = list(replies)
        self.requests: list[dict[str, Any]] = []
        self.request_headers: list[dict[str, str]] = []
        self.unanswered = 0
        self.waiting = threading.Event()
        """Set when a stream holds at `"WAIT"`."""
        self.release = threading.Event()
        """Lets held streams go on."""
        self.port = 0
        self._lock = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        with self._lock:
            self.requests.append(body)
            self.request_headers.append(headers)
            if self.replies:
                return self.replies.pop(0)
            self.unanswered += 1
            return Reply(status=500, json={"error": {"message": "the mock has no reply left"}})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mock: MockResponses

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._plain(404, {"error": {"message": "not here"}}, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))) or b"{}")
        if not self.path.split("?")[0].endswith(("/responses", "/responses/compact")):
            self._plain(404, {"error": {"message": "not here"}}, {})
            return
        reply = self.mock.take(body, {name.lower(): value for name, value in self.headers.items()})
        try:
            if reply.status is not None:
                self._plain(reply.status, reply.json, reply.headers)
            else:
                self._stream(reply)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _plain(self, status: int, body: object, headers: Mapping[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, reply: Reply) -> None:
        self.send_response(200)
        for name, value in {
            "content-type": "text/event-stream",
            **reply.headers,
            "transfer-encoding": "chunked",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        for event in reply.events:
            if isinstance(event, str):
                self.mock.waiting.set()
                self.mock.release.wait(60)
                continue
            self._chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        if reply.cut:
            self.close_connection = True
        else:
            self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def serve_responses(replies: Sequence[Reply]) -> Iterator[MockResponses]:
    """A mock on a free port while the block runs."""
    mock = MockResponses(replies)
    handler = type("Handler", (_Handler,), {"mock": mock})
    with _Server(("127.0.0.1", 0), handler) as server:
        mock.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="mock-responses")
        thread.start()
        try:
            yield mock
        finally:
            mock.release.set()
            server.shutdown()
            thread.join()
