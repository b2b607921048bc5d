"""The examples in docs/scripted-model.md work as they stand."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from engine.models.script_files import _STEPS, parse_script
from engine.models.script_requests import _LISTS, _PLAIN
from engine.models.scripted import ScriptedModel
from tests.models.exchanges import collect, request, user

PAGE = (Path(__file__).parents[2] / "docs" / "scripted-model.md").read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", examples("toml"))
def test_toml(text: str) -> None:
    if "model_provider" in text:
        assert tomllib.loads(text)["model_providers"]["scripted"]["script"]
    else:
        assert parse_script(text).responses


@pytest.mark.parametrize("text", examples("jsonl"))
def test_json_lines(text: str) -> None:
    assert len(parse_script(text, "jsonl").responses) == 3


@pytest.mark.parametrize("text", examples("python"))
async def test_python(text: str) -> None:
    names: dict[str, object] = {}
    exec(compile(text, "docs/scripted-model.md", "exec"), names)
    model, echo = names["model"], names["echo"]
    assert isinstance(model, ScriptedModel)
    assert isinstance(echo, ScriptedModel)
    for _ in range(3):
        await collect(model)
    assert any("You said: hi" in str(event) for event in await collect(echo, request(user("hi"))))


def test_every_step_and_placeholder_is_described() -> None:
    for name in _STEPS:
        assert f"`{name} = " in PAGE
    for name in (*_PLAIN, *_LISTS):
        assert f"${{{name}}}" in PAGE
