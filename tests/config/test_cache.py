"""Configurations are loaded once, and again when something they were made of changed."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine
from engine.config.cache import Configurations
from engine.errors import ConfigError


@pytest.fixture(name="made")
def _made(tmp_path: Path) -> Configurations:
    return Configurations(tmp_path, {"HOME": str(tmp_path)}, {}, system_folder=str(tmp_path / "etc"))


async def test_what_did_not_change_is_the_same_object(made: Configurations, tmp_path: Path) -> None:
    cwd = str(tmp_path)
    first = await made.get({}, cwd)
    assert await made.get({}, cwd) is first
    other = await made.get({"model": "m"}, cwd)
    assert (other.model, first.model) == ("m", None)
    (tmp_path / "config.toml").write_text("model = 'file'")
    again = await made.get({}, cwd)
    assert (again.model, first.model) == ("file", None)
    assert (await made.get({"model": "m"}, cwd)).model == "m"


async def test_a_file_that_became_bad_is_an_error_until_it_is_good_again(made: Configurations, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("model = 'a'")
    first = await made.get({}, str(tmp_path))
    file.write_text("model = 3")
    for _ in range(2):
        with pytest.raises(ConfigError):
            await made.get({}, str(tmp_path))
    assert first.model == "a"
    file.write_text("model = 'b'")
    assert (await made.get({}, str(tmp_path))).model == "b"


async def test_the_number_of_kept_configurations_is_bounded(made: Configurations, tmp_path: Path) -> None:
    for number in range(made.LIMIT + 3):
        await made.get({"model": str(number)}, str(tmp_path))
    assert len(made._made) <= made.LIMIT


async def test_reading_and_writing_through_an_engine(tmp_path: Path) -> None:
    home, etc = tmp_path / "home", tmp_path / "etc"
    home.mkdir()
    etc.mkdir()
    model = engine.ScriptedModel([])
    async with engine.open_engine(home=home, system_folder=etc, model=model, config={"review_model": "r"}) as host:
        before = await host.read_config(tmp_path)
        edits = [engine.ConfigEdit("model", "gpt-5.4"), engine.ConfigEdit("features.goals", True)]
        version = next(layer.version for layer in before.everything if layer.name == "user")
        written = await host.write_config(edits, expected_version=version)
        assert (written.status, written.path) == ("ok", str(home / "config.toml"))
        with pytest.raises(engine.ConfigWriteError) as caught:
            await host.write_config(edits, expected_version=version)
        assert caught.value.code == "configVersionConflict"
        after = await host.read_config()
        assert after.table == {"model": "gpt-5.4", "features": {"goals": True}, "review_model": "r"}
        assert after.origins["review_model"] == "sessionFlags"
        async with host.session(engine.SessionSettings(cwd=tmp_path)) as session:
            assert session.model == "gpt-5.4"


async def test_a_profile_of_an_engine(tmp_path: Path) -> None:
    (tmp_path / "work.config.toml").write_text("model = 'from file'")
    (tmp_path / "config.toml").write_text("[profiles.old]\nmodel = 'from table'")
    for profile, expected in (("work", "from file"), ("old", "from table")):
        made = Configurations(tmp_path, {}, {}, profile=profile, system_folder=str(tmp_path / "etc"))
        assert (await made.get({}, str(tmp_path))).model == expected
    missing = Configurations(tmp_path, {}, {}, profile="none", system_folder=str(tmp_path / "etc"))
    with pytest.raises(ConfigError, match="config profile `none` not found"):
        await missing.get({}, str(tmp_path))
    (tmp_path / "old.config.toml").write_text("")
    both = Configurations(tmp_path, {}, {}, profile="old", system_folder=str(tmp_path / "etc"))
    with pytest.raises(ConfigError, match=r"--profile-v2 `old` cannot be used while .*config\.toml contains"):
        await both.get({}, str(tmp_path))


async def test_what_holds_for_a_whole_engine_is_not_a_sessions_to_change(tmp_path: Path) -> None:
    made = Configurations(tmp_path, {}, {"forced_login_method": "api"}, system_folder=str(tmp_path / "etc"))
    assert (await made.get({}, str(tmp_path))).warnings == ()
    assert (await made.get({"model": "m"}, str(tmp_path))).warnings == ()
    late = {"forced_login_method": "chatgpt", "durability": "fsync", "cli_auth_credentials_store": "keyring"}
    warnings = (await made.get(late, str(tmp_path))).warnings
    assert [text.split()[0] for text in warnings] == [
        "`forced_login_method`",
        "`cli_auth_credentials_store`",
        "`durability`",
    ]
    (tmp_path / "config.toml").write_text("forced_chatgpt_workspace_id = 'w'\n")
    (text,) = (await made.get({}, str(tmp_path))).warnings
    assert text == (
        "`forced_chatgpt_workspace_id` holds for a whole engine, as it was opened with it; what this session's "
        "configuration has there is ignored."
    )


async def test_a_configuration_is_current_until_it_would_come_out_differently(
    made: Configurations, tmp_path: Path
) -> None:
    cwd = str(tmp_path)
    first = await made.get({}, cwd)
    assert made.is_current(first)
    (tmp_path / "config.toml").write_text("model = 'file'")
    assert not made.is_current(first)
    again = await made.get({}, cwd)
    assert made.is_current(again)
    assert not made.is_current(first)
    for number in range(made.LIMIT):
        await made.get({"model": str(number)}, cwd)
    assert not made.is_current(again)  # nobody remembers
