"""`[otel]`: nothing by default, one exporter per kind, bad entries dropped one by one (config.md 12)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.layers import LayerStack
from engine.config.loading import load_config
from engine.config.model import Config
from engine.config.otel import otel_settings
from engine.errors import ConfigError
from engine.telemetry.settings import NOTHING_EXPORTED, Exporter


def load(tmp_path: Path, text: str) -> Config:
    home = tmp_path / "codex"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(text)
    return load_config(home, cwd=tmp_path, env={"HOME": str(tmp_path)})


def test_nothing_is_exported_by_default(tmp_path: Path) -> None:
    for text in ("", "[otel]\nexporter = 'none'\ntrace_exporter = 'statsig'\nmetrics_exporter = 'statsig'"):
        config = load(tmp_path, text)
        assert config.otel == NOTHING_EXPORTED
        assert not config.otel.exports
        assert config.otel.environment == "dev"
        assert not config.warnings


def test_a_log_exporter_says_nothing_about_traces(tmp_path: Path) -> None:
    otel = load(tmp_path, "otel.exporter = {otlp-http = {endpoint = 'http://h/v1/logs', protocol = 'binary'}}").otel
    assert otel.exports
    assert (otel.logs, otel.traces, otel.metrics) == (Exporter("http://h/v1/logs"), None, None)


def test_headers_and_certificates(tmp_path: Path) -> None:
    text = """
[otel]
environment = "prod"
log_user_prompt = true
[otel.trace_exporter.otlp-http]
endpoint = "https://h/v1/traces"
headers = { x-key = "secret" }
[otel.trace_exporter.otlp-http.tls]
ca-certificate = "ca.pem"
client-certificate = "/c.pem"
client-private-key = "/k.pem"
"""
    otel = load(tmp_path, text).otel
    folder = tmp_path / "codex"
    assert otel.traces == Exporter(
        "https://h/v1/traces", (("x-key", "secret"),), str(folder / "ca.pem"), "/c.pem", "/k.pem"
    )
    assert (otel.environment, otel.log_user_prompt) == ("prod", True)
    assert "secret" not in repr(otel)


@pytest.mark.parametrize(
    ("exporter", "protocol"),
    [
        ("otlp-http = {endpoint = 'http://h'}", "binary"),
        ("otlp-http = {endpoint = 'http://h', protocol = 'binary'}", "binary"),
        ("otlp-http = {endpoint = 'http://h', protocol = 'json'}", "json"),
        ("otlp-grpc = {endpoint = 'http://h'}", "grpc"),
    ],
)
def test_protocols(tmp_path: Path, exporter: str, protocol: str) -> None:
    logs = load(tmp_path, f"otel.exporter = {{{exporter}}}").otel.logs
    assert logs is not None
    assert (logs.endpoint, logs.protocol) == ("http://h", protocol)


def test_metrics_need_analytics_not_disabled(tmp_path: Path) -> None:
    text = "otel.metrics_exporter = {otlp-http = {endpoint = 'http://h'}}\n"
    assert load(tmp_path, text).otel.metrics is not None
    assert load(tmp_path, text + "analytics.enabled = false").otel.metrics is None


def test_bad_span_attributes_are_dropped_one_by_one(tmp_path: Path) -> None:
    config = load(tmp_path, "otel.span_attributes = {team = 'a', '' = 'b', site = 'c'}")
    assert config.otel.span_attributes == (("team", "a"), ("site", "c"))
    (warning,) = config.warnings
    assert "otel.span_attributes" in warning


def test_bad_members_of_tracestate_are_dropped_one_by_one(tmp_path: Path) -> None:
    text = """
[otel.tracestate]
good = { a = "1", b = "2" }
half = { a = "1", b = "x,y" }
empty = { b = "x;y" }
UPPER = { a = "1" }
"""
    config = load(tmp_path, text)
    assert config.otel.tracestate == (("good", "a:1;b:2"), ("half", "a:1"))
    assert [warning.rsplit("`", 2)[1] for warning in config.warnings] == ["half.b", "empty.b", "empty", "UPPER"]


@given(st.dictionaries(st.text(max_size=6), st.one_of(st.text(), st.dictionaries(st.text(max_size=4), st.text()))))
def test_what_is_kept_of_tracestate_is_what_a_header_may_hold(members: dict[str, object]) -> None:
    settings, warnings = otel_settings({"tracestate": members}, LayerStack(()), analytics=True)
    for name, text in settings.tracestate:
        assert f"{name}={text}".isascii()
        assert not set(text) & set(",=\r\n")
    assert len(settings.tracestate) + len(warnings) >= min(len(members), 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("otel.exporter = {otlp-grpc = {headers = {}}}", "missing field `endpoint`"),
        ("otel.exporter = {otlp-http = {endpoint = 'http://h', protocol = 'xml'}}", "protocol"),
        ("otel.exporter = {otlp-http = {}}", "missing field `endpoint`"),
        ("otel.exporter = {kafka = {}}", "unknown exporter `kafka`"),
        ("otel.exporter = {}", "must name one exporter"),
        ("otel.exporter.otlp-http = {endpoint = 'x', tls = {client-certificate = '/c'}}", "come together"),
    ],
)
def test_what_this_engine_can_not_send_is_an_error_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert "config.toml" in str(caught.value)


def test_a_project_has_no_say(tmp_path: Path) -> None:
    home, project = tmp_path / "codex", tmp_path / "project"
    (project / ".codex").mkdir(parents=True)
    (project / ".git").mkdir()
    home.mkdir()
    (project / ".codex" / "config.toml").write_text("otel.exporter = {otlp-http = {endpoint = 'http://h'}}")
    (home / "config.toml").write_text(f"projects.'{project}'.trust_level = 'trusted'")
    config = load_config(home, cwd=project, env={"HOME": str(tmp_path)})
    assert config.otel == NOTHING_EXPORTED
    assert any("otel" in warning for warning in config.warnings)
