"""Telemetry that is kept in memory instead of sent; skipped where the extra `otel` is not installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.session.conftest import Lab

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import ScopeMetrics
    from opentelemetry.sdk.trace import ReadableSpan

    from engine.telemetry.settings import OtelSettings

OTEL: dict[str, object] = {
    kind: {"otlp-http": {"endpoint": f"http://127.0.0.1:1/{kind}"}}
    for kind in ("exporter", "trace_exporter", "metrics_exporter")
}
ALL: dict[str, object] = {"otel": OTEL}


class Kept:
    """What would have been sent."""

    def __init__(self) -> None:
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
        from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        kept: list[MetricsData] = []

        class KeepingMetrics(MetricExporter):
            def export(
                self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
            ) -> MetricExportResult:
                kept.append(metrics_data)
                return MetricExportResult.SUCCESS

            def force_flush(self, timeout_millis: float = 10_000) -> bool:
                return True

            def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
                pass

        self._spans = InMemorySpanExporter()
        self._logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self._metrics = KeepingMetrics()
        self._data = kept

    def exporters(self, settings: OtelSettings) -> object:
        from engine.telemetry.exporters import Exporters

        return Exporters(
            spans=None if settings.traces is None else self._spans,
            logs=None if settings.logs is None else self._logs,
            metrics=None if settings.metrics is None else self._metrics,
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that ended, in order."""
        return list(self._spans.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        """The only span of a name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def events(self, name: str) -> list[Mapping[str, object]]:
        """The attributes of the logged events of a name."""
        records = (data.log_record for data in self._logs.get_finished_logs())
        return [dict(record.attributes or {}) for record in records if record.event_name == name]

    def points(self, name: str) -> list[tuple[Mapping[str, object], float]]:
        """The attributes and the value (of a distribution: how many) of each series of a metric."""
        return [(tags, values if count is None else count) for tags, values, count in self._series(name)]

    def sums(self, name: str) -> list[tuple[Mapping[str, object], float]]:
        """The attributes and the sum of each series of a metric."""
        return [(tags, total) for tags, total, _ in self._series(name)]

    def metrics(self) -> set[str]:
        """The names of all metrics."""
        return {metric.name for scope in self._scopes() for metric in scope.metrics}

    def _scopes(self) -> list[ScopeMetrics]:
        last = self._data[-1] if self._data else None
        return [scope for resource in (last.resource_metrics if last else ()) for scope in resource.scope_metrics]

    def _series(self, name: str) -> Iterator[tuple[Mapping[str, object], float, int | None]]:
        from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint

        for scope in self._scopes():
            for metric in scope.metrics:
                for point in metric.data.data_points if metric.name == name else ():
                    assert isinstance(point, HistogramDataPoint | NumberDataPoint)
                    if isinstance(point, HistogramDataPoint):
                        yield dict(point.attributes or {}), point.sum, point.count
                    else:
                        yield dict(point.attributes or {}), point.value, None


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
    from engine.telemetry import exporters

    made = Kept()
    monkeypatch.setattr(exporters, "exporters_of", made.exporters)
    return made


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)
