"""OTLP over HTTP as JSON: the exporters of the extra `otel-json`."""

from __future__ import annotations

from opentelemetry.exporter.otlp.json.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.json.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

from engine.telemetry.otlp_http import connection
from engine.telemetry.settings import Exporter

__all__ = ["logs", "metrics", "spans"]


def spans(target: Exporter, timeout: float) -> SpanExporter:
    """What sends spans there; `timeout`: seconds for one request with its retries."""
    return OTLPSpanExporter(**connection(target, timeout))


def logs(target: Exporter, timeout: float) -> LogRecordExporter:
    """What sends log records there."""
    return OTLPLogExporter(**connection(target, timeout))


def metrics(target: Exporter, timeout: float) -> MetricExporter:
    """What sends metrics there."""
    return OTLPMetricExporter(**connection(target, timeout))
