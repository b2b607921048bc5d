"""What the plan of a login means: the tier of a session where nobody chose one, requirements that are not fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import engine
from engine.auth.record import AuthRecord, Tokens
from engine.auth.storage import AuthFile
from engine.protocol.events import SessionConfigured, Warning
from tests.auth.logins import chatgpt, identity, jwt
from tests.session.conftest import Lab
from tests.session.test_identity import served


def log_in(home: Path, plan: str) -> None:
    tokens = Tokens(identity(plan=plan), jwt(exp=4_102_444_800), "r", "acc")
    AuthFile(home).save(chatgpt(tokens=tokens, last_refresh="2100-01-01T00:00:00Z"))


async def tier(opened: engine.Engine, lab: Lab, **settings: Any) -> str | None:
    async with opened.session(lab.settings(**settings)) as session:
        with session.events() as events:
            msg = (await events.__anext__()).msg
        assert isinstance(msg, SessionConfigured)
        return msg.service_tier


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        *((plan, "priority") for plan in ("enterprise", "hc", "business", "enterprise_cbp_usage_based")),
        *((plan, "priority") for plan in ("team", "self_serve_business_usage_based", "Enterprise")),
        *((plan, None) for plan in ("free", "plus", "pro", "edu", "something_new")),
    ],
)
async def test_a_plan_may_include_the_fast_tier(lab: Lab, plan: str, expected: str | None) -> None:
    log_in(lab.home, plan)
    async with served(lab) as (opened, _):
        assert await tier(opened, lab) == expected


@pytest.mark.parametrize(
    ("plan", "warned"), [("business", True), ("hc", True), ("edu", True), ("team", False), ("plus", False)]
)
async def test_requirements_of_the_cloud_are_told_to_be_missing(lab: Lab, plan: str, warned: bool) -> None:
    log_in(lab.home, plan)
    async with served(lab) as (opened, _), opened.session(lab.settings(service_tier="flex")) as session:
        with session.events() as events:
            assert isinstance((await events.__anext__()).msg, SessionConfigured)
            if warned:
                msg = (await events.__anext__()).msg
                assert isinstance(msg, Warning)
                assert f"for logins with the plan `{plan}`" in msg.message
            assert events.pending() == 0


async def test_it_goes_with_requests_where_the_model_has_it(lab: Lab) -> None:
    log_in(lab.home, "team")
    async with served(lab, "a", "b") as (opened, server):
        server.models = []
        async with opened.session(lab.settings(model="gpt-5.4")) as session:
            await session.run("x")
            await session.run("y", engine.SettingsUpdate(service_tier=None))
    fast, slow = (request.body.get("service_tier") for request in lab.model.requests)
    assert (fast, slow) == ("priority", None)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("service_tier = 'flex'", "flex"),
        ("[features]\nfast_mode = false", None),
        ("[notice]\nfast_default_opt_out = true", None),
        ("[notice]\nfast_default_opt_out = false", "priority"),
    ],
)
async def test_what_somebody_chose_counts_more(lab: Lab, config: str, expected: str | None) -> None:
    log_in(lab.home, "enterprise")
    (lab.home / "config.toml").write_text(config)
    async with served(lab) as (opened, _):
        assert await tier(opened, lab) == expected
        assert await tier(opened, lab, service_tier=None) is None
        assert await tier(opened, lab, service_tier="flex") == "flex"


async def test_an_update_of_a_resumed_thread_is_a_choice(lab: Lab) -> None:
    log_in(lab.home, "enterprise")
    async with served(lab, "a") as (opened, _):
        async with opened.session(lab.settings()) as session:
            await session.run("x")
        for update, expected in (
            (engine.SettingsUpdate(), "priority"),
            (engine.SettingsUpdate(service_tier=None), None),
        ):
            again = await opened.resume_session(session.thread_id, update)
            with again.events() as events:
                msg = (await events.__anext__()).msg
            assert isinstance(msg, SessionConfigured)
            assert msg.service_tier == expected
            await again.aclose()


async def test_a_login_that_is_not_used_has_no_say(lab: Lab) -> None:
    log_in(lab.home, "enterprise")
    async with served(lab, api_key="k") as (opened, _):
        assert await tier(opened, lab) is None
    async with lab.open() as opened:
        assert await tier(opened, lab) is None


async def test_a_login_while_the_engine_runs_counts_for_later_sessions(lab: Lab) -> None:
    async with served(lab) as (opened, _):
        assert await tier(opened, lab) is None
        log_in(lab.home, "business")
        assert await tier(opened, lab) == "priority"


async def test_a_host_says_the_plan_with_its_tokens(lab: Lab) -> None:
    async def tokens(previous: str | None) -> engine.ExternalLogin:
        return engine.ExternalLogin("t", "acc", plan="enterprise")

    async with served(lab, "a", auth=tokens) as (opened, _):
        assert await tier(opened, lab) is None  # a start asks nobody
        async with opened.session(lab.settings()) as session:
            await session.run("x")
        assert await tier(opened, lab) == "priority"
        login = await opened.login()
    assert login is not None
    assert login.plan == "enterprise"


async def test_a_login_that_can_not_be_read_is_the_first_requests_error(lab: Lab) -> None:
    (lab.home / "auth.json").write_text("{")
    async with served(lab) as (opened, _), opened.session(lab.settings()) as session:
        with pytest.raises(engine.TurnFailed, match=r"auth\.json"):
            await session.run("x")


def test_an_access_token_names_its_plan() -> None:
    from engine.auth.manager import Login

    token = jwt(**{"https://api.openai.com/auth": {"chatgpt_plan_type": "team"}})
    assert Login(AuthRecord(auth_mode="chatgptAuthTokens", tokens=Tokens("", token, "", None))).plan == "team"
