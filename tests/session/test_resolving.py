"""What settings come to is used again as long as it would come out the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import pytest

import engine
from engine.models.scripts import reply
from engine.protocol.profiles import DangerFullAccess
from engine.protocol.settings import GranularApproval
from engine.session.resolving import Resolved, SettingsResolver
from tests.session.conftest import Lab


def resolver_of(opened: engine.Engine) -> SettingsResolver:
    return opened._services.resolver


async def test_equal_settings_in_one_place_share_what_they_come_to(lab: Lab) -> None:
    async with lab.open() as opened:
        resolver, cwd = resolver_of(opened), str(lab.cwd)
        first = await resolver.resolve(lab.settings(), cwd)
        assert await resolver.resolve(lab.settings(), cwd) is first
        assert await resolver.resolve(lab.settings(), str(lab.home)) is not first
        other = await resolver.resolve(lab.settings(model="m"), cwd)
        assert (other.configuration.model, first.configuration.model) == ("m", None)


async def test_what_a_thread_had_chosen_for_itself_is_not_shared(lab: Lab) -> None:
    async with lab.open(reply("one"), reply("two")) as opened:
        session = await opened.start_session(lab.settings())
        await session.run("first", engine.SettingsUpdate(personality="friendly"))
        await session.aclose()
        async with opened.session(lab.settings()) as fresh:
            resumed = await opened.resume_session(session.thread_id, settings=lab.settings())
            assert resumed._core.configuration.personality == "friendly"
            assert fresh._core.configuration.personality != "friendly"
        async with opened.session(lab.settings()) as after:
            assert after._core.configuration is fresh._core.configuration


@pytest.mark.parametrize(
    "change",
    [
        lambda lab: (lab.home / "config.toml").write_text("model = 'of-the-file'"),
        lambda lab: (lab.home / "AGENTS.md").write_text("be brief"),
        lambda lab: (lab.cwd / "AGENTS.md").write_text("be brief"),
        lambda lab: (lab.cwd / ".codex").mkdir(),
        lambda lab: (lab.cwd / ".git").mkdir(),
    ],
    ids=["config", "home instructions", "project instructions", "project config", "project root"],
)
async def test_what_changed_on_the_disk_is_resolved_again(lab: Lab, change: Callable[[Lab], object]) -> None:
    async with lab.open() as opened:
        resolver, cwd = resolver_of(opened), str(lab.cwd)
        first = await resolver.resolve(lab.settings(), cwd)
        change(lab)
        again = await resolver.resolve(lab.settings(), cwd)
        assert again is not first
        assert await resolver.resolve(lab.settings(), cwd) is again


async def test_a_session_sees_a_changed_file(lab: Lab) -> None:
    async with lab.open() as opened:
        async with opened.session(lab.settings()):
            pass
        (lab.home / "config.toml").write_text("model = 'gpt-5.4'")
        async with opened.session(lab.settings()) as session:
            assert session.model == "gpt-5.4"


GRANULAR = GranularApproval(sandbox_approval=True, rules=True, mcp_elicitations=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"config": {"model": "m"}},
        {"workspace_roots": ["."]},
        {"environments": [engine.EnvironmentSelection("local")]},
        {"shell": "bash"},
        {"sandbox": DangerFullAccess()},
        {"approval_policy": GRANULAR},
        {"source": {"subagent": "review"}},
    ],
    ids=lambda settings: next(iter(settings)),
)
async def test_what_the_caller_could_change_afterwards_is_not_shared(lab: Lab, settings: Mapping[str, object]) -> None:
    given = attrs.evolve(engine.SessionSettings(cwd=lab.cwd), **settings)  # type: ignore[arg-type]
    async with lab.open() as opened:
        resolver = resolver_of(opened)
        first = await resolver.resolve(given, str(lab.cwd))
        again = await resolver.resolve(given, str(lab.cwd))
        assert isinstance(again, Resolved)
        assert again is not first


async def test_the_number_of_what_is_kept_is_bounded_and_the_oldest_goes(lab: Lab) -> None:
    async with lab.open() as opened:
        resolver, cwd = resolver_of(opened), str(lab.cwd)
        made = [await resolver.resolve(lab.settings(model=str(number)), cwd) for number in range(resolver.LIMIT + 1)]
        assert len(resolver._known) == resolver.LIMIT
        assert await resolver.resolve(lab.settings(model="1"), cwd) is made[1]
        assert await resolver.resolve(lab.settings(model="0"), cwd) is not made[0]


async def test_sessions_that_share_a_configuration_are_changed_one_by_one(lab: Lab) -> None:
    async with (
        lab.open() as opened,
        opened.session(lab.settings()) as one,
        opened.session(lab.settings()) as other,
    ):
        assert one._core.configuration is other._core.configuration
        await one.update(engine.SettingsUpdate(model="gpt-5.4", cwd=lab.home))
        assert (one._core.configuration.model, one._core.configuration.cwd) == ("gpt-5.4", str(lab.home))
        assert (other._core.configuration.model, other._core.configuration.cwd) == (None, str(lab.cwd))
        async with opened.session(lab.settings()) as third:
            assert third._core.configuration is other._core.configuration


async def test_the_model_comes_from_the_catalogue_of_now(lab: Lab) -> None:
    async with lab.open() as opened:
        resolved = await resolver_of(opened).resolve(lab.settings(), str(lab.cwd))
        catalogue = opened._services.models.catalogue(resolved.configuration.config)
        default = resolved.model(None, catalogue)
        assert resolved.model(None, catalogue) is default
        assert resolved.model("gpt-5.4-mini", catalogue).slug == "gpt-5.4-mini"
        (other,) = (attrs.evolve(default, slug="newer"),)
        assert resolved.model(None, (other,)) is other


@pytest.mark.parametrize("bad", [{"sandbox": "everything"}, {"approval_policy": "always"}, {"model_provider": "none"}])
async def test_bad_settings_are_refused_each_time(lab: Lab, bad: Mapping[str, object]) -> None:
    given = attrs.evolve(engine.SessionSettings(cwd=lab.cwd), **bad)  # type: ignore[arg-type]
    async with engine.open_engine(home=lab.home) as opened:
        for _ in range(2):
            with pytest.raises(engine.SessionStartError) as caught:
                await opened.start_session(given)
            assert caught.value.stage == "configuration"
