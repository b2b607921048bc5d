"""`[otel]`: which telemetry the user wants to have where (config.md 12). Nothing is sent unless a file says so.

`statsig`, the default for metrics, means nothing here. Bad attributes of spans are dropped one by one, with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from engine.telemetry.settings import Exporter, OtelSettings

if TYPE_CHECKING:
    from engine.config.layers import LayerStack
    from engine.telemetry.settings import OtlpProtocol

__all__ = ["otel_settings"]

Table = Mapping[str, object]

_EMPTY: Table = {}
_KINDS = {"logs": "exporter", "traces": "trace_exporter", "metrics": "metrics_exporter"}
_TLS = ("ca-certificate", "client-certificate", "client-private-key")
# W3C trace context 3.3: the keys of members, and what their values may hold.
_MEMBER = re.compile(r"[a-z0-9][_0-9a-z\-*/]{0,240}(?:@[a-z0-9][_0-9a-z\-*/]{0,13})?")
_FIELD = re.compile(r"[^\s:;=,]+")
_FIELD_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3a\x3c\x3e-\x7e]*")
_MOST_MEMBERS = 32
_LONGEST_MEMBER = 256


def otel_settings(table: Table, stack: LayerStack, *, analytics: bool) -> tuple[OtelSettings, tuple[str, ...]]:
    """The settings of a well-typed `[otel]` table, and warnings. `analytics` false switches metrics off.

    Raises `ConfigError` for an exporter that this engine does not have.
    """
    warnings: list[str] = []
    exporters = {kind: _exporter(table.get(key, "none"), key, stack) for kind, key in _KINDS.items()}
    settings = OtelSettings(
        logs=exporters["logs"],
        traces=exporters["traces"],
        metrics=exporters["metrics"] if analytics else None,
        environment=cast(str, table.get("environment", "dev")),
        log_user_prompt=table.get("log_user_prompt") is True,
        span_attributes=tuple(_attributes(_table(table, "span_attributes"), warnings)),
        tracestate=tuple(_members(_table(table, "tracestate"), warnings))[:_MOST_MEMBERS],
    )
    return settings, tuple(warnings)


def _exporter(value: object, key: str, stack: LayerStack) -> Exporter | None:
    if not isinstance(value, Mapping):
        return None  # `none` and `statsig`
    where = ("otel", key)
    if len(value) != 1:
        raise stack.error(f"otel.{key} must name one exporter, e.g. {{otlp-http = {{endpoint = ...}}}}", where)
    ((name, options),) = value.items()
    if name not in ("otlp-http", "otlp-grpc"):
        expected = "expected `none`, `statsig`, `otlp-http` or `otlp-grpc`"
        raise stack.error(f"otel.{key}: unknown exporter `{name}`, {expected}", where)
    options = cast(Table, options)
    protocol: OtlpProtocol = "grpc" if name == "otlp-grpc" else cast("OtlpProtocol", options.get("protocol", "binary"))
    tls = _table(options, "tls")
    if ("client-certificate" in tls) != ("client-private-key" in tls):
        raise stack.error(f"otel.{key}: `client-certificate` and `client-private-key` come together", where)
    ca, certificate, private = (cast("str | None", tls.get(option)) for option in _TLS)
    headers = cast("Mapping[str, str]", _table(options, "headers"))
    return Exporter(cast(str, options["endpoint"]), tuple(headers.items()), ca, certificate, private, protocol)


def _attributes(table: Table, warnings: list[str]) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if not name.strip() or not isinstance(value, str):
            warnings.append(f"Ignored an invalid entry of `otel.span_attributes`: `{name}`")
        else:
            yield name, value


def _members(table: Table, warnings: list[str]) -> Iterator[tuple[str, str]]:
    """The members whose fields are well-formed; one that ends up empty is dropped."""
    for member, fields in table.items():
        if not _MEMBER.fullmatch(member) or not isinstance(fields, str | Mapping):
            warnings.append(f"Ignored an invalid member of `otel.tracestate`: `{member}`")
            continue
        text = fields if isinstance(fields, str) else ";".join(_fields(member, fields, warnings))
        if _valid_member(text):
            yield member, text
        else:
            warnings.append(f"Ignored an empty or invalid member of `otel.tracestate`: `{member}`")


def _fields(member: str, fields: Table, warnings: list[str]) -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, str) and _FIELD.fullmatch(name) and _FIELD_VALUE.fullmatch(value):
            yield f"{name}:{value}"
        else:
            warnings.append(f"Ignored an invalid field of `otel.tracestate`: `{member}.{name}`")


def _valid_member(text: str) -> bool:
    printable = all(" " <= char <= "~" and char not in ",=" for char in text)
    return 0 < len(text) <= _LONGEST_MEMBER and not text.endswith(" ") and printable


def _table(table: Table, key: str) -> Table:
    return cast(Table, table.get(key) or _EMPTY)
