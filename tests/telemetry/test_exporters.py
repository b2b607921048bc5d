"""What really goes over the wire: to servers on loopback, in each form of OTLP."""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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


def exporters(make: Callable[[str], object]) -> dict[str, object]:
    """Where each kind goes."""
    kinds = {"exporter": "logs", "trace_exporter": "traces", "metrics_exporter": "metrics"}
    return {"otel": {key: make(kind) for key, kind in kinds.items()}}


@pytest.mark.parametrize(("protocol", "content"), [("binary", "x-protobuf"), ("json", "json")])
async def test_everything_has_arrived_when_the_engine_is_closed(
    lab: Lab, receiver: Receiver, protocol: str, content: str
) -> None:
    if protocol == "json":
        pytest.importorskip("opentelemetry.exporter.otlp.json.http", reason="the extra `otel-json` is not installed")

    def exporter(kind: str) -> object:
        url = f"{receiver.url}/v1/{kind}"
        return {"otlp-http": {"endpoint": url, "headers": {"x-key": kind}, "protocol": protocol}}

    async with lab.open(reply("a"), config=exporters(exporter)) as opened:
        async with opened.session(lab.settings()) as session:
            await session.run("my secret question")
    logs, traces, metrics = (receiver.bodies(f"/v1/{kind}") for kind in ("logs", "traces", "metrics"))
    assert_told(logs, traces, metrics)
    for path, headers, _ in receiver.received:
        assert headers["x-key"] == path.rpartition("/")[2]
        assert headers["content-type"] == f"application/{content}"


def assert_told(logs: bytes, traces: bytes, metrics: bytes) -> None:
    """A session with one turn is in there."""
    assert logs.count(b"codex.conversation_starts") >= 1
    assert b"[REDACTED]" in logs
    assert b"session_init.thread_persistence" in traces
    assert b"session_task.turn" in traces
    assert b"codex.turn.e2e_duration_ms" in metrics
    assert b"my secret" not in logs + traces + metrics


async def test_everything_has_arrived_by_grpc(lab: Lab) -> None:
    grpc = pytest.importorskip("grpc", reason="the extra `otel-grpc` is not installed")
    received: dict[str, bytes] = {}
    keys: set[object] = set()

    def service(handler: object, details: Any) -> object:
        """Takes every method, and keeps what it is given."""
        kind = details.method.split(".")[3]  # opentelemetry.proto.collector.<kind>

        def keep(request: bytes, context: object) -> bytes:
            received[kind] = received.get(kind, b"") + request
            keys.update(value for name, value in details.invocation_metadata if name == "x-key")
            return b""

        return grpc.unary_unary_rpc_method_handler(keep)

    collector = type("Collector", (grpc.GenericRpcHandler,), {"service": service})()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[collector])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:

        def exporter(kind: str) -> object:
            return {"otlp-grpc": {"endpoint": f"http://127.0.0.1:{port}", "headers": {"X-Key": kind}}}

        async with lab.open(reply("a"), config=exporters(exporter)) as opened:
            async with opened.session(lab.settings()) as session:
                await session.run("my secret question")
    finally:
        server.stop(None).wait()
    assert_told(received["logs"], received["trace"], received["metrics"])
    assert keys == {"logs", "traces", "metrics"}


@pytest.mark.parametrize(
    ("exporter", "extra"),
    [
        ({"otlp-grpc": {"endpoint": "http://127.0.0.1:1"}}, "otel-grpc"),
        ({"otlp-http": {"endpoint": "http://127.0.0.1:1", "protocol": "json"}}, "otel-json"),
        ({"otlp-http": {"endpoint": "http://127.0.0.1:1"}}, "otel"),
    ],
)
async def test_the_extra_of_a_protocol_that_is_missing_is_named(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, exporter: object, extra: str
) -> None:
    import engine.telemetry

    for module in ("otlp_binary", "otlp_grpc", "otlp_json"):
        monkeypatch.delitem(sys.modules, f"engine.telemetry.{module}", raising=False)
        monkeypatch.delattr(engine.telemetry, module, raising=False)
    for package in ("proto.grpc", "proto.http", "json.http"):
        monkeypatch.setitem(sys.modules, f"opentelemetry.exporter.otlp.{package}._log_exporter", None)
    with pytest.raises(engine.ConfigError, match=rf"install `session-engine\[{extra}\]`"):
        async with lab.open(config={"otel": {"trace_exporter": exporter}}):
            raise AssertionError("it opened")


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
