"""Telemetry by the OpenTelemetry SDK: imported only where an exporter is configured (the extra `otel`).

The SDK's own threads send, in batches; what is told here only goes into their queues. Nothing global is set: a host's
own OpenTelemetry stays as it is, and its current span is the parent of what a session does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.metrics import Counter, Histogram, Meter
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from engine.telemetry.handle import Attributes, Beginning, Telemetry

if TYPE_CHECKING:
    from opentelemetry._logs import Logger

    from engine.telemetry.settings import OtelSettings

__all__ = ["OtelTelemetry", "Outlets"]

logger = logging.getLogger("engine.telemetry")

REDACTED: Final = "[REDACTED]"
# What tells one session from another has no place on metrics: each value would be a series of its own.
_ON_METRICS = ("app.version", "auth_mode", "model", "originator", "service_name", "session_source")
_PROPAGATOR = TraceContextTextMapPropagator()


class Outlets:
    """Where telemetry goes in: a tracer, a logger and a meter of the SDK, each `None` where nothing of it is sent."""

    def __init__(self, tracer: Tracer | None, logger: Logger | None, meter: Meter | None) -> None:
        self.tracer = tracer
        self.logger = logger
        self.meter = meter
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def counter(self, meter: Meter, name: str) -> Counter:
        """The counter of a name."""
        if name not in self._counters:
            self._counters[name] = meter.create_counter(name)
        return self._counters[name]

    def histogram(self, meter: Meter, name: str) -> Histogram:
        """The distribution of a name."""
        if name not in self._histograms:
            self._histograms[name] = meter.create_histogram(name, unit="ms" if name.endswith("_ms") else "")
        return self._histograms[name]


class OtelTelemetry:
    """The handle of an engine (`root` is `None`), or of a session, whose trace is the one of `root`."""

    enabled = True

    def __init__(
        self,
        outlets: Outlets,
        settings: OtelSettings,
        facts: Attributes | None = None,
        private: Attributes | None = None,
    ) -> None:
        self._outlets = outlets
        self._settings = settings
        self._facts: dict[str, str | int | float | bool] = {}
        self._private: dict[str, str | int | float | bool] = {}
        self._root: SpanContext | None = None
        self.learn(facts or {}, private or {})

    def learn(self, facts: Attributes, private: Attributes | None = None) -> None:
        self._facts = {**self._facts, **facts}
        self._private = {**self._private, **(private or {})}
        self._span_facts = {**dict(self._settings.span_attributes), **self._facts}
        self._tags = {key: value for key, value in self._facts.items() if key in _ON_METRICS}

    def session(self, beginning: Beginning) -> Telemetry:
        handle = OtelTelemetry(self._outlets, self._settings, beginning.facts, beginning.private)
        handle._root = handle._tell_start(beginning)
        return handle

    def _tell_start(self, beginning: Beginning) -> SpanContext | None:
        """The start is over, so its spans are told after the fact and cost it nothing."""
        tracer = self._outlets.tracer
        if tracer is None:
            return None
        startup = beginning.startup
        ended = time.time_ns()
        began = ended - _ns(startup.duration)
        parent = tracer.start_span("session_init", _parent(beginning), attributes=self._span_facts, start_time=began)
        inside = trace.set_span_in_context(parent)
        for step in startup.spans:
            child = tracer.start_span(
                f"session_init.{step.name}",
                inside,
                attributes={**self._span_facts, **beginning.steps.get(step.name, {})},
                start_time=began + _ns(step.start),
            )
            if step.status != "ok":
                _mark(child, step.status)
            child.end(began + _ns(step.start + step.duration))
        if beginning.status != "ok":
            _mark(parent, beginning.status)
        parent.end(ended)
        return parent.get_span_context()

    @contextmanager
    def span(self, name: str, attributes: Attributes | None = None) -> Iterator[None]:
        tracer = self._outlets.tracer
        if tracer is None:
            yield
            return
        context, links = self._place()
        span = tracer.start_span(name, context, attributes={**self._span_facts, **(attributes or {})}, links=links)
        token = otel_context.attach(trace.set_span_in_context(span, context))
        try:
            yield
        except Exception as exc:
            _mark(span, "failed", type(exc).__name__)
            raise
        except BaseException:
            _mark(span, "cancelled")
            raise
        finally:
            otel_context.detach(token)
            span.end()

    def _place(self) -> tuple[otel_context.Context | None, list[Link]]:
        """What a new span is in: the span around it, if that is of this trace; else the start of the session.

        A host's span around a turn, of another trace, is linked.
        """
        around = trace.get_current_span().get_span_context()
        if self._root is None or self._is_ours(around):
            return None, []
        context = trace.set_span_in_context(NonRecordingSpan(self._root))
        return context, [Link(around)] if around.is_valid else []

    def count(self, name: str, value: int = 1, tags: Attributes | None = None) -> None:
        meter = self._outlets.meter
        if meter is not None:
            self._outlets.counter(meter, name).add(value, {**self._tags, **(tags or {})})

    def measure(self, name: str, value: float, tags: Attributes | None = None) -> None:
        meter = self._outlets.meter
        if meter is not None:
            self._outlets.histogram(meter, name).record(value, {**self._tags, **(tags or {})})

    def event(self, name: str, attributes: Attributes | None = None, texts: Mapping[str, str] | None = None) -> None:
        texts = texts or {}
        self._tell(name, attributes or {}, texts, {f"{key}_length": len(text) for key, text in texts.items()})

    def prompt(self, text: str, counts: Attributes | None = None) -> None:
        shown = text if self._settings.log_user_prompt else REDACTED
        self._tell("codex.user_prompt", {"prompt_length": len(text), **(counts or {})}, {"prompt": shown}, {})

    def propagation(self) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        if self._outlets.tracer is not None and self._is_ours(trace.get_current_span().get_span_context()):
            _PROPAGATOR.inject(headers)
        return headers

    def _tell(self, name: str, attributes: Attributes, logged: Attributes, traced: Attributes) -> None:
        now = time.time_ns()
        common = {"event.name": name, "event.timestamp": _timestamp(now), **attributes}
        if self._outlets.logger is not None:
            self._outlets.logger.emit(
                timestamp=now,
                observed_timestamp=now,
                context=otel_context.get_current(),
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                event_name=name,
                attributes={**self._facts, **self._private, **common, **logged},
            )
        if self._outlets.tracer is not None and self._is_ours(trace.get_current_span().get_span_context()):
            trace.get_current_span().add_event(name, {**common, **traced}, timestamp=now)

    def _is_ours(self, span: SpanContext) -> bool:
        """Whether a span belongs to the trace of the session; a host's own span of another trace is left alone."""
        return self._root is not None and span.trace_id == self._root.trace_id


def _parent(beginning: Beginning) -> otel_context.Context | None:
    """Where a start belongs: what the host named, its own span, what the process was started in; else a new trace."""
    named = _extracted(beginning.carrier, "this session")
    if named is not None:
        return named
    if trace.get_current_span().get_span_context().is_valid:
        return None
    return _extracted(beginning.ambient, "this process")


def _extracted(carrier: Mapping[str, str], whose: str) -> otel_context.Context | None:
    if not carrier.get("traceparent"):
        return None
    context = _PROPAGATOR.extract(carrier, otel_context.Context())
    if trace.get_current_span(context).get_span_context().is_valid:
        return context
    logger.warning("the `traceparent` of %s is not valid and ignored: %.100r", whose, carrier["traceparent"])
    return None


def _mark(span: Span, status: str, error: str | None = None) -> None:
    span.set_attribute("status", status)
    if error is not None:
        span.set_attribute("error.type", error)  # its text may hold what the user or the model wrote
    span.set_status(Status(StatusCode.ERROR, status))


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _timestamp(ns: int) -> str:
    moment = datetime.fromtimestamp(ns / 1_000_000_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
