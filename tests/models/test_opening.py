"""Which model answers for which provider."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.loading import load_config
from engine.config.model import Config
from engine.errors import ConfigError, ScriptError, UnknownProvider
from engine.models.client import ResponsesClient
from engine.models.opening import open_model, open_models
from engine.models.scripted import ScriptedModel
from tests.models.exchanges import collect

CONFIG = """
[model_providers.mock]
name = "mock"
base_url = "http://127.0.0.1:1/v1"
[model_providers.tool]
name = "tool"
base_url = "http://127.0.0.1:1/v1"
auth = { command = "x" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "demo.toml").write_text('[[responses]]\ntext = "scripted"\nrepeat = true')
    return load_config(tmp_path, cwd=tmp_path, env={})


async def test_openai_is_the_default(config: Config) -> None:
    async with open_model(config, env={}) as model:
        assert isinstance(model, ResponsesClient)
        assert model.provider.id == "openai"


async def test_one_client_per_provider(config: Config) -> None:
    async with open_models(config, env={}) as pool:
        mock = pool.get(config, "mock")
        assert pool.get(config, "mock") is mock
        assert pool.get(config) is not mock
        assert mock.provider.id == "mock"


async def test_a_given_model_answers_for_all(config: Config) -> None:
    given = ScriptedModel(["a"])
    async with open_models(config, model=given) as pool:
        assert pool.get(config, "nobody knows") is given


async def test_unknown_providers_name_the_known_ones(config: Config) -> None:
    with pytest.raises(UnknownProvider) as caught:
        async with open_model(config, provider="nope"):
            pass
    assert "Model provider `nope` not found; known providers: amazon-bedrock, lmstudio, mock, o" in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "why"), [("amazon-bedrock", "not supported yet"), ("tool", "an engine that can run commands")]
)
async def test_providers_that_cannot_be_talked_to(config: Config, provider: str, why: str) -> None:
    async with open_models(config, env={}) as pool:
        with pytest.raises(ConfigError, match=why):
            pool.get(config, provider)


async def test_scripted_is_chosen_by_name_only(config: Config) -> None:
    async with open_model(config, provider="scripted", script="demo.toml") as model:
        assert len(await collect(model)) > 3
        assert model.provider.id == "scripted"
    with pytest.raises(ConfigError, match="add `--model-provider scripted`"):
        async with open_model(config, script="demo.toml"):
            pass
    with pytest.raises(ScriptError, match="pass `--script FILE`"):
        async with open_model(config, provider="scripted"):
            pass


async def test_the_script_may_stand_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text('[[responses]]\ntext = "a"')
    (tmp_path / "config.toml").write_text(
        f'model_provider = "scripted"\n[model_providers.scripted]\nscript = "{tmp_path}/demo.toml"\n'
    )
    configured = load_config(tmp_path, cwd=tmp_path, env={})
    async with open_model(configured) as model:
        assert isinstance(model, ScriptedModel)
        await collect(model)


LAZY = """
import sys, trio
trio_modules = set(sys.modules)
import engine.models
assert not [name for name in sys.modules if name.startswith("engine.models.")], "importing the package loads its parts"
import engine.models.catalogue, engine.models.client, engine.models.opening
import engine.models.scripted, engine.models.serving
new = set(sys.modules) - trio_modules
heavy = {"httpx2", "httpcore2", "h11", "asyncio", "rich", "tomlkit"} & new
assert not heavy, heavy
assert set(engine.models.__all__) <= set(dir(engine.models))
for name in engine.models.__all__: getattr(engine.models, name)
try: engine.models.nothing
except AttributeError: pass
else: raise SystemExit("unknown names must not resolve")
"""


def test_importing_loads_no_http_library() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", LAZY], check=True, env=environment)
