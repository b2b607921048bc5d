"""Where telemetry goes and what it may say: the typed form of `[otel]`, nothing of it by default (config.md 12)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

__all__ = ["EXTRAS", "NOTHING_EXPORTED", "Exporter", "OtelSettings", "OtlpProtocol"]

# OTLP over HTTP, as protobuf or as JSON, and over gRPC.
OtlpProtocol = Literal["binary", "json", "grpc"]

# What a protocol needs: an extra of ours, and the package that it brings.
EXTRAS: Final[Mapping[OtlpProtocol, tuple[str, str]]] = {
    "binary": ("otel", "opentelemetry.exporter.otlp.proto.http"),
    "json": ("otel-json", "opentelemetry.exporter.otlp.json.http"),
    "grpc": ("otel-grpc", "opentelemetry.exporter.otlp.proto.grpc"),
}


class Exporter(NamedTuple):
    """A server that takes one kind of telemetry over OTLP. Paths are absolute."""

    endpoint: str
    headers: tuple[tuple[str, str], ...] = ()
    ca_certificate: str | None = None
    client_certificate: str | None = None
    client_private_key: str | None = None
    protocol: OtlpProtocol = "binary"

    def __repr__(self) -> str:
        return f"<Exporter {self.endpoint} ({self.protocol})>"  # headers hold keys


class OtelSettings(NamedTuple):
    """What goes where; a kind without an exporter goes nowhere.

    - `logs`, `traces`, `metrics`: where each kind goes; none stands for another
    - `log_user_prompt`: whether logs hold what the user wrote
    - `span_attributes` are on every span, `tracestate` on every trace
    """

    logs: Exporter | None = None
    traces: Exporter | None = None
    metrics: Exporter | None = None
    environment: str = "dev"
    log_user_prompt: bool = False
    span_attributes: tuple[tuple[str, str], ...] = ()
    tracestate: tuple[tuple[str, str], ...] = ()

    @property
    def exports(self) -> bool:
        """Whether anything is sent at all."""
        return self.logs is not None or self.traces is not None or self.metrics is not None

    def exporters(self) -> Iterator[tuple[str, Exporter]]:
        """The kinds that are sent, with where they go."""
        for kind, exporter in (("logs", self.logs), ("traces", self.traces), ("metrics", self.metrics)):
            if exporter is not None:
                yield kind, exporter


NOTHING_EXPORTED = OtelSettings()
