"""Which tools are offered, in which order, and what the model is told about them."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.loading import load_config
from engine.config.model import Config
from engine.models.catalogue import ModelInfo
from engine.protocol.codec import json_bytes
from engine.protocol.wire import JsonObject
from engine.tools.apply_patch import patch_grammar
from engine.tools.base import ToolHandler
from engine.tools.builtin import session_tools, shell_family
from engine.tools.functions import tool
from engine.tools.registry import ToolRegistry

from .bench import Bench, still_bench

MODEL = ModelInfo(slug="m", display_name="M", shell_type="shell_command")
FREEFORM = attrs.evolve(MODEL, apply_patch_tool_type="freeform", supports_image_detail_original=True)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(tmp_path, cwd=tmp_path, env={})


def with_features(config: Config, **features: bool) -> Config:
    return attrs.evolve(config, features={**config.features, **features})


def names(handlers: list[ToolHandler]) -> list[str]:
    return [handler.name for handler in handlers if handler.spec() is not None]


def spec_of(handlers: list[ToolHandler], name: str) -> JsonObject:
    (spec,) = [spec for handler in handlers if handler.name == name and (spec := handler.spec()) is not None]
    return spec


def parameters_of(handlers: list[ToolHandler], name: str) -> JsonObject:
    parameters = spec_of(handlers, name)["parameters"]
    assert isinstance(parameters, dict)
    return parameters


def types_of(handlers: list[ToolHandler], name: str) -> dict[str, object]:
    """Parameter -> type, in order."""
    properties = parameters_of(handlers, name)["properties"]
    assert isinstance(properties, dict)
    return {key: schema["type"] for key, schema in properties.items()}


def test_order_of_the_array(config: Config) -> None:
    @tool()
    async def mine() -> None: ...

    handlers = session_tools(config, FREEFORM, [mine])
    assert names(handlers) == ["exec_command", "write_stdin", "update_plan", "apply_patch", "view_image", "mine"]
    hidden = [handler.name for handler in handlers if handler.spec() is None]
    assert hidden == ["shell_command"]
    assert {handler.name: handler.parallel for handler in handlers} == {
        "exec_command": True,
        "write_stdin": False,
        "shell_command": False,
        "update_plan": False,
        "apply_patch": False,
        "view_image": True,
        "mine": True,
    }


def test_a_model_without_patch_tool_is_not_offered_one(config: Config) -> None:
    assert names(session_tools(config, MODEL)) == ["exec_command", "write_stdin", "update_plan", "view_image"]


def test_shell_command_alone_where_unified_exec_is_off(config: Config) -> None:
    handlers = session_tools(with_features(config, unified_exec=False), FREEFORM)
    assert names(handlers) == ["shell_command", "update_plan", "apply_patch", "view_image"]
    assert handlers[0].parallel


def test_no_shell_where_the_shell_tool_is_off(config: Config) -> None:
    handlers = session_tools(with_features(config, shell_tool=False), FREEFORM)
    assert [handler.name for handler in handlers] == ["update_plan", "apply_patch", "view_image"]


@pytest.mark.parametrize(
    ("features", "shell_type", "family"),
    [
        ({}, "shell_command", "unified_exec"),
        ({}, "disabled", "unified_exec"),
        ({"shell_tool": False, "shell_zsh_fork": True}, "shell_command", "disabled"),
        ({"shell_zsh_fork": True}, "unified_exec", "shell_command"),
        ({"unified_exec": False}, "unified_exec", "shell_command"),
        ({"unified_exec": False}, "default", "shell_command"),
        ({"unified_exec": False}, "local", "shell_command"),
        ({"unified_exec": False}, "disabled", "disabled"),
    ],
)
def test_shell_family(features: dict[str, bool], shell_type: str, family: str) -> None:
    assert shell_family(features, shell_type) == family


def test_parameters_of_the_command_tools(config: Config) -> None:
    handlers = session_tools(config, FREEFORM)
    assert types_of(handlers, "exec_command") == {
        "cmd": "string",
        "justification": "string",
        "login": "boolean",
        "max_output_tokens": "number",
        "prefix_rule": "array",
        "sandbox_permissions": "string",
        "shell": "string",
        "tty": "boolean",
        "workdir": "string",
        "yield_time_ms": "number",
    }
    assert parameters_of(handlers, "exec_command")["required"] == ["cmd"]
    assert types_of(handlers, "write_stdin") == {
        "chars": "string",
        "max_output_tokens": "number",
        "session_id": "number",
        "yield_time_ms": "number",
    }
    assert parameters_of(handlers, "write_stdin")["required"] == ["session_id"]
    shell = session_tools(with_features(config, unified_exec=False), FREEFORM)
    assert types_of(shell, "shell_command") == {
        "command": "string",
        "justification": "string",
        "login": "boolean",
        "prefix_rule": "array",
        "sandbox_permissions": "string",
        "timeout_ms": "number",
        "workdir": "string",
    }
    assert parameters_of(shell, "shell_command")["required"] == ["command"]


def test_login_is_a_parameter_only_where_login_shells_are_allowed(config: Config) -> None:
    config = attrs.evolve(config, allow_login_shell=False)
    assert "login" not in types_of(session_tools(config, FREEFORM), "exec_command")
    assert "login" not in types_of(session_tools(with_features(config, unified_exec=False), MODEL), "shell_command")


def test_parameters_of_the_others(config: Config) -> None:
    handlers = session_tools(config, FREEFORM)
    assert types_of(handlers, "update_plan") == {"explanation": "string", "plan": "array"}
    plan = parameters_of(handlers, "update_plan")["properties"]
    assert isinstance(plan, dict)
    steps = plan["plan"]["items"]
    assert steps["properties"]["status"]["enum"] == ["pending", "in_progress", "completed"]
    assert (steps["required"], steps["additionalProperties"]) == (["step", "status"], False)
    assert types_of(handlers, "view_image") == {"detail": "string", "path": "string"}
    assert types_of(session_tools(config, MODEL), "view_image") == {"path": "string"}
    patch = spec_of(handlers, "apply_patch")
    assert patch["type"] == "custom"
    assert patch["format"] == {"type": "grammar", "syntax": "lark", "definition": patch_grammar()}


def test_every_function_is_closed_described_and_not_strict(config: Config) -> None:
    for handlers in (session_tools(config, FREEFORM), session_tools(with_features(config, unified_exec=False), MODEL)):
        for handler in handlers:
            spec = handler.spec()
            if spec is None or handler.kind == "custom":
                continue
            assert list(spec) == ["type", "name", "description", "strict", "parameters"]
            assert (spec["type"], spec["name"], spec["strict"]) == ("function", handler.name, False)
            assert spec["description"]
            parameters = parameters_of(handlers, handler.name)
            assert list(parameters) == ["type", "properties", "required", "additionalProperties"]
            assert parameters["additionalProperties"] is False
            properties = parameters["properties"]
            assert isinstance(properties, dict)
            assert list(properties) == sorted(properties)
            assert all(schema["description"] for schema in properties.values())


def test_specs_are_the_same_bytes_every_time(config: Config) -> None:
    one, other = (ToolRegistry(session_tools(config, FREEFORM)).specs() for _ in range(2))
    assert json_bytes(one) == json_bytes(other)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
_PARAMETERS = (
    "cmd command workdir shell tty yield_time_ms max_output_tokens login environment_id sandbox_permissions "
    "justification prefix_rule timeout_ms timeout plan explanation path detail chars"
)


@given(
    name=st.sampled_from(["exec_command", "shell_command", "update_plan", "view_image"]),
    arguments=st.dictionaries(st.sampled_from(_PARAMETERS.split()), _VALUES) | st.text(),
)
async def test_any_arguments_get_an_answer_and_nothing_runs_unasked(
    name: str, arguments: dict[str, object] | str, tmp_path: Path
) -> None:
    bench: Bench = still_bench(tmp_path)
    bench.turn(approval_policy="untrusted")
    handlers = {
        handler.name: handler for handler in session_tools(load_config(tmp_path, cwd=tmp_path, env={}), FREEFORM)
    }
    output = await bench.call(handlers[name], arguments)
    assert isinstance(output.content, str)
    assert "Error:" not in output.content
    assert output.success is (output.content == "Plan updated")
