"""OTLP over gRPC: the exporters of the extra `otel-grpc`. An endpoint with `http://` is spoken to without TLS."""

from __future__ import annotations

from typing import TypedDict

import grpc
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

from engine.telemetry.settings import Exporter

__all__ = ["logs", "metrics", "spans"]


def spans(target: Exporter, timeout: float) -> SpanExporter:
    """What sends spans there; `timeout`: seconds for one request with its retries. Raises `OSError`."""
    return OTLPSpanExporter(**_channel(target, timeout))


def logs(target: Exporter, timeout: float) -> LogRecordExporter:
    """What sends log records there. Raises `OSError`."""
    return OTLPLogExporter(**_channel(target, timeout))


def metrics(target: Exporter, timeout: float) -> MetricExporter:
    """What sends metrics there. Raises `OSError`."""
    return OTLPMetricExporter(**_channel(target, timeout))


class _Channel(TypedDict):
    endpoint: str
    insecure: bool
    credentials: grpc.ChannelCredentials | None
    headers: dict[str, str]
    timeout: float


def _channel(target: Exporter, timeout: float) -> _Channel:
    return _Channel(
        endpoint=target.endpoint,
        insecure=_is_open(target),
        credentials=_credentials(target),
        headers=_metadata(target),
        timeout=timeout,
    )


def _is_open(target: Exporter) -> bool:
    return target.endpoint.startswith("http://")


def _credentials(target: Exporter) -> grpc.ChannelCredentials | None:
    if _is_open(target):
        return None
    return grpc.ssl_channel_credentials(
        _content(target.ca_certificate), _content(target.client_private_key), _content(target.client_certificate)
    )


def _metadata(target: Exporter) -> dict[str, str]:
    return {name.lower(): value for name, value in target.headers}  # gRPC takes no capitals


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()
