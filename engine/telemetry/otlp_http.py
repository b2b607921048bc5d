"""Where OTLP over HTTP goes to, as the exporters of both encodings take it."""

from __future__ import annotations

from typing import TypedDict

from engine.telemetry.settings import Exporter

__all__ = ["Connection", "connection"]


class Connection(TypedDict):
    """Keyword arguments of an exporter; `timeout` in seconds."""

    endpoint: str
    headers: dict[str, str]
    timeout: float
    certificate_file: str | None
    client_certificate_file: str | None
    client_key_file: str | None


def connection(target: Exporter, timeout: float) -> Connection:
    """For a target of the configuration; `timeout`: seconds for one request with its retries."""
    return Connection(
        endpoint=target.endpoint,
        headers=dict(target.headers),
        timeout=timeout,
        certificate_file=target.ca_certificate,
        client_certificate_file=target.client_certificate,
        client_key_file=target.client_private_key,
    )
