"""The SDK behind a handle: providers of its own, whose threads send to OTLP servers, and their bounded end.

Imported only where an exporter is configured. Queues are bounded; what does not fit is dropped with a log line.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import TraceState

from engine.errors import ConfigError
from engine.telemetry.otel import OtelTelemetry, Outlets
from engine.telemetry.settings import EXTRAS

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.util.types import Attributes

    from engine.telemetry.settings import Exporter, OtelSettings

__all__ = ["Exporters", "Sending", "exporters_of", "send_to"]

TIMEOUT: Final = 3.0  # seconds for one request with its retries
SCOPE: Final = "engine"


class Exporters(NamedTuple):
    """What sends each kind; `None` where it is not sent."""

    spans: SpanExporter | None = None
    logs: LogRecordExporter | None = None
    metrics: MetricExporter | None = None


class Sending(NamedTuple):
    """A handle; `finish` are the blocking calls that send what is left, `interrupt` ends those that hang."""

    telemetry: OtelTelemetry
    finish: Sequence[Callable[[], object]]
    interrupt: Callable[[], None]


class _Everything(Sampler):
    """Every trace is sent; new ones begin with the configured state."""

    def __init__(self, state: TraceState) -> None:
        self._state = state

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        state = parent.trace_state if parent.is_valid else self._state
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)

    def get_description(self) -> str:
        return "everything"


def exporters_of(settings: OtelSettings) -> Exporters:
    """The exporters that configuration names.

    Raises `ConfigError` for certificates that are not there, and for a protocol whose packages are not installed.
    """
    spans, logs, metrics = settings.traces, settings.logs, settings.metrics
    return Exporters(
        spans=None if spans is None else _otlp(spans).spans(spans, TIMEOUT),
        logs=None if logs is None else _otlp(logs).logs(logs, TIMEOUT),
        metrics=None if metrics is None else _otlp(metrics).metrics(metrics, TIMEOUT),
    )


class _Otlp(Protocol):
    """A module that speaks one form of OTLP."""

    def spans(self, target: Exporter, timeout: float) -> SpanExporter: ...

    def logs(self, target: Exporter, timeout: float) -> LogRecordExporter: ...

    def metrics(self, target: Exporter, timeout: float) -> MetricExporter: ...


def _otlp(target: Exporter) -> _Otlp:
    for path in (target.ca_certificate, target.client_certificate, target.client_private_key):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigError(f"the certificate or key {path} of the OTLP exporter for {target.endpoint} can't be read")
    extra, _ = EXTRAS[target.protocol]
    try:
        found: _Otlp = importlib.import_module(f"engine.telemetry.otlp_{target.protocol}")
    except ImportError as exc:
        raise ConfigError(
            f"the OTLP exporter for {target.endpoint} needs packages that are not installed ({exc.name}): install "
            f"`session-engine[{extra}]`, or use another protocol"
        ) from exc
    return found


def send_to(exporters: Exporters, settings: OtelSettings, version: str) -> Sending:
    """Starts the SDK's threads; blocking, a few milliseconds. They end with the calls in `finish`."""
    resource = Resource({"service.name": SCOPE, "service.version": version, "env": settings.environment})
    finish: list[Callable[[], object]] = []
    stop: list[Callable[[], object]] = []
    outlets = Outlets(None, None, None)
    if exporters.spans is not None:
        spans = TracerProvider(
            sampler=_Everything(TraceState(list(settings.tracestate))), resource=resource, shutdown_on_exit=False
        )
        spans.add_span_processor(BatchSpanProcessor(exporters.spans))
        outlets.tracer = spans.get_tracer(SCOPE, version)
        finish.append(spans.shutdown)
        stop.append(exporters.spans.shutdown)
    if exporters.logs is not None:
        logs = LoggerProvider(resource=resource, shutdown_on_exit=False)
        logs.add_log_record_processor(BatchLogRecordProcessor(exporters.logs))
        outlets.logger = logs.get_logger(SCOPE, version)
        finish.append(logs.shutdown)
        stop.append(exporters.logs.shutdown)
    if exporters.metrics is not None:
        reader = PeriodicExportingMetricReader(exporters.metrics)
        metrics = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        outlets.meter = metrics.get_meter(SCOPE, version)
        finish.append(metrics.shutdown)
        stop.append(exporters.metrics.shutdown)

    def interrupt() -> None:
        for call in stop:
            call()

    return Sending(OtelTelemetry(outlets, settings), finish, interrupt)
