"""What really goes over the wire: to a server on loopback, in the binary form of OTLP/HTTP."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import engine
from engine.models.scripts import reply
from tests.session.conftest import Lab

pytestmark = pytest.mark.usefixtures("_extra")


@pytest.fixture
def _extra() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otel` is not installed")


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted: path, headers, body."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self, path: str) -> bytes:
        return b"".join(body for where, _, body in self.received if where == path)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append((self.path, headers, body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_everything_has_arrived_when_the_engine_is_closed(lab: Lab, receiver: Receiver) -> None:
    def exporter(kind: str) -> object:
        return {"otlp-http": {"endpoint": f"{receiver.url}/v1/{kind}", "headers": {"x-key": kind}}}

    otel = {
        "exporter": exporter("logs"),
        "trace_exporter": exporter("traces"),
        "metrics_exporter": exporter("metrics"),
    }
    async with lab.open(reply("a"), config={"otel": otel}) as opened:
        async with opened.session(lab.settings()) as session:
            await session.run("my secret question")
    logs, traces, metrics = (receiver.bodies(f"/v1/{kind}") for kind in ("logs", "traces", "metrics"))
    assert logs.count(b"codex.conversation_starts") >= 1
    assert b"[REDACTED]" in logs
    assert b"session_init.thread_persistence" in traces
    assert b"session_task.turn" in traces
    assert b"codex.turn.e2e_duration_ms" in metrics
    assert b"my secret" not in logs + traces + metrics
    for path, headers, _ in receiver.received:
        assert headers["x-key"] == path.rpartition("/")[2]
        assert headers["content-type"] == "application/x-protobuf"


async def test_the_threads_of_the_sdk_end_with_the_engine(lab: Lab, receiver: Receiver) -> None:
    otel = {"trace_exporter": {"otlp-http": {"endpoint": f"{receiver.url}/v1/traces"}}}
    before = set(threading.enumerate())
    async with lab.open(config={"otel": otel}):
        assert any("Otel" in thread.name for thread in set(threading.enumerate()) - before)
    assert not [thread for thread in set(threading.enumerate()) - before if "Otel" in thread.name]


async def test_a_server_that_is_not_there_fails_nothing(lab: Lab) -> None:
    otel = {"trace_exporter": {"otlp-http": {"endpoint": "http://127.0.0.1:1/v1/traces"}}}
    async with lab.open(reply("a"), config={"otel": otel}) as opened:
        async with opened.session(lab.settings()) as session:
            assert (await session.run("hi")).final_message == "a"


async def test_a_certificate_that_is_not_there(lab: Lab) -> None:
    server = {"endpoint": "https://127.0.0.1:1", "tls": {"ca-certificate": "/nowhere/ca.pem"}}
    with pytest.raises(engine.ConfigError, match=r"/nowhere/ca\.pem"):
        async with lab.open(config={"otel": {"exporter": {"otlp-http": server}}}):
            raise AssertionError("it opened")
