"""The login of an engine: where it comes from, how it is renewed, once, whoever asks (config.md 15)."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from engine.auth.base import RequestAuth
from engine.auth.errors import LoginError, LoginStoreError, RefreshFailed
from engine.auth.manager import AuthManager, ExternalLogin, Login
from engine.auth.record import AuthRecord
from engine.auth.refreshing import CLIENT_ID, due, token_url
from engine.auth.storage import AuthFile, LoginStore
from engine.errors import InvalidRequest
from tests.auth.logins import DAY, NOW, FakeKeyring, TokenServer, chatgpt, identity, jwt, managed, token_server


def stored(home: Path) -> AuthRecord:
    found = AuthFile(home).load()
    assert found is not None
    return found


def access(record: AuthRecord) -> str:
    assert record.tokens is not None
    return record.tokens.access_token


async def current(manager: AuthManager) -> Login:
    found = await manager.login()
    assert found is not None
    return found


# --- where it comes from ---------------------------------------------------------------------------


async def test_host_then_store_then_environment(tmp_path: Path) -> None:
    env = {"OPENAI_API_KEY": "environment"}
    async with managed(tmp_path, env=env) as manager:
        assert (await current(manager)).record.api_key == "environment"
        AuthFile(tmp_path).save(AuthRecord(api_key="stored"))
        assert (await current(manager)).record.api_key == "stored"
    async with managed(tmp_path, env=env, api_key="host") as manager:
        assert (await current(manager)).record.api_key == "host"
    async with managed(tmp_path, env={"CODEX_ACCESS_TOKEN": "token", **env}) as manager:
        found = await current(manager)
        assert (found.mode, found.request_auth().token, found.backend) == ("chatgptAuthTokens", "token", True)
    async with managed(tmp_path / "empty") as manager:
        assert await manager.login() is None
        assert manager.cached is None


async def test_a_login_while_the_engine_runs_is_seen(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager:
        assert await manager.login() is None
        AuthFile(tmp_path).save(AuthRecord(api_key="one"))
        assert (await current(manager)).request_auth().headers() == {"authorization": "Bearer one"}
        AuthFile(tmp_path).save(chatgpt("tok"))
        found = await current(manager)
        assert found.request_auth().headers() == {"authorization": "Bearer tok", "chatgpt-account-id": "acc"}
        assert (found.email, found.plan, found.account_id) == ("me@example.com", "plus", "acc")
        AuthFile(tmp_path).delete()
        assert await manager.login() is None


@pytest.mark.parametrize("content", [{"OPENAI_API_KEY": None}, {"auth_mode": "apikey", "OPENAI_API_KEY": " "}, {}])
async def test_a_file_without_anything_is_no_login(tmp_path: Path, content: Any) -> None:
    (tmp_path / "auth.json").write_text(json.dumps(content))
    async with managed(tmp_path) as manager:
        assert await manager.login() is None


async def test_a_file_that_cannot_be_read_is_an_error_until_it_can(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("{")
    async with managed(tmp_path) as manager:
        for _ in range(2):
            with pytest.raises(LoginStoreError, match="not valid JSON"):
                await manager.login()
        AuthFile(tmp_path).save(AuthRecord(api_key="k"))
        assert (await current(manager)).record.api_key == "k"


# --- what is allowed -------------------------------------------------------------------------------


async def test_forced_methods(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(AuthRecord(api_key="k"))
    async with managed(tmp_path, forced_method="chatgpt") as manager:
        with pytest.raises(LoginError, match="asks for a ChatGPT login"):
            await manager.login()
        with pytest.raises(InvalidRequest, match=r"^API key login is disabled\. Use ChatGPT login instead\.$"):
            await manager.log_in_with_key("k")
        await manager.log_in_with_tokens(chatgpt())
        assert (await current(manager)).mode == "chatgpt"
    async with managed(tmp_path, forced_method="api") as manager:
        with pytest.raises(LoginError, match="asks for an API key"):
            await manager.login()
        with pytest.raises(InvalidRequest, match=r"^ChatGPT login is disabled\. Use API key login instead\.$"):
            manager.use_tokens(ExternalLogin("t", "acc"))


async def test_forced_workspaces(tmp_path: Path) -> None:
    async with managed(tmp_path, workspaces=("w1", "w2")) as manager:
        with pytest.raises(InvalidRequest, match="allows w1, w2, and the login is for acc"):
            await manager.log_in_with_tokens(chatgpt())
        AuthFile(tmp_path).save(chatgpt())
        with pytest.raises(LoginError, match="allows w1, w2"):
            await manager.login()
        manager.use_tokens(ExternalLogin("t", "w2"))
        assert (await current(manager)).account_id == "w2"


async def test_logging_in_and_out(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager:
        with pytest.raises(InvalidRequest, match="empty"):
            await manager.log_in_with_key("  ")
        await manager.log_in_with_key(" key ")
        assert json.loads((tmp_path / "auth.json").read_text()) == {"auth_mode": "apikey", "OPENAI_API_KEY": "key"}
        assert (tmp_path / "auth.json").stat().st_mode & 0o777 == 0o600
        assert (await current(manager)).record.api_key == "key"
        manager.use_tokens(ExternalLogin("t", "acc"))
        assert (await current(manager)).external
        assert await manager.log_out()
        assert await manager.login() is None
        assert not await manager.log_out()


# --- before a request -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "last", "wanted"),
    [
        (jwt(exp=NOW - 1), "2027-01-15T00:00:00Z", True),
        (jwt(exp=NOW), "2027-01-15T00:00:00Z", True),
        (jwt(exp=NOW + 1), "2020-01-01T00:00:00Z", False),  # the token says when it ends, so its age is nothing
        ("opaque", "2027-01-06T00:00:00Z", True),  # nine days
        ("opaque", "2027-01-10T00:00:00Z", False),
        ("opaque", None, False),
        ("opaque", "whenever", False),
    ],
)
def test_when_tokens_are_renewed_before_use(token: str, last: str | None, wanted: bool) -> None:
    assert due(chatgpt(token, last_refresh=last), NOW) is wanted


def test_keys_are_never_renewed() -> None:
    assert not due(AuthRecord(api_key="k"), NOW)
    assert DAY * 8 < NOW


async def test_a_token_that_is_over_is_renewed_first(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt(jwt(exp=NOW - 1), extra={"kept": 1}))
    async with token_server() as server, managed(tmp_path, server) as manager:
        found = await current(manager)
        assert access(found.record) == "new"
        assert server.requests == [{"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": "r1"}]
        on_disk = stored(tmp_path)
        assert on_disk == found.record
        assert on_disk.last_refresh == "2027-01-15T08:00:00.000000Z"
        assert on_disk.extra == {"kept": 1}
        await current(manager)
        assert len(server.requests) == 1


async def test_where_that_fails_the_old_token_is_used(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt(jwt(exp=NOW - 1)))
    async with token_server() as server, managed(tmp_path, server) as manager:
        server.answer = (503, {})
        assert (await current(manager)).record == chatgpt(jwt(exp=NOW - 1))
        assert len(server.requests) == 1


async def test_what_the_server_leaves_out_stays(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        server.answer = (200, {"access_token": "new", "id_token": None, "refresh_token": 5})
        login = await current(manager)
        await manager.refresh(login)
        record = stored(tmp_path)
        assert record.tokens is not None
        assert (record.tokens.access_token, record.tokens.refresh_token) == ("new", "r1")
        assert record.tokens.id_token == identity()


# --- one at a time ----------------------------------------------------------------------------------


async def test_two_at_once_are_one_request(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        login = await current(manager)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(manager.refresh, login)
        assert len(server.requests) == 1
        await manager.refresh(login)  # it is another one by now
        assert len(server.requests) == 1


async def test_who_is_cancelled_does_not_take_the_answer_along(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        server.gate = trio.Event()
        login = await current(manager)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.refresh, login)
            await server.arrived.wait()
            nursery.cancel_scope.cancel()
        server.gate.set()
        await manager.refresh(login)
        assert access(stored(tmp_path)) == "new"
        assert len(server.requests) == 1


async def test_the_end_of_the_engine_lets_a_renewal_finish(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server:
        server.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            async with managed(tmp_path, server) as manager:
                login = await current(manager)
                nursery.start_soon(_refused, manager, login)
                await server.arrived.wait()
                server.gate.set()
        assert access(stored(tmp_path)) == "new"


async def _refused(manager: AuthManager, login: Login) -> None:
    try:
        await manager.refresh(login)
    except RefreshFailed:
        pass


# --- what others did meanwhile ------------------------------------------------------------------------


async def test_changed_on_disk_is_done_without_a_request(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        login = await current(manager)
        AuthFile(tmp_path).save(chatgpt("theirs", "r9"))
        await manager.refresh(login)
        assert access((await current(manager)).record) == "theirs"
        assert server.requests == []


@pytest.mark.parametrize("other", [chatgpt("x", account="other"), None, AuthRecord(api_key="k")])
async def test_another_account_on_disk_is_final(tmp_path: Path, other: AuthRecord | None) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        login = await current(manager)
        if other is None:
            AuthFile(tmp_path).delete()
        else:
            AuthFile(tmp_path).save(other)
        with pytest.raises(RefreshFailed, match="another account") as caught:
            await manager.refresh(login)
        assert (caught.value.permanent, caught.value.reason) == (True, "account")
        assert server.requests == []


async def test_another_process_was_faster_with_the_same_token(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        login = await current(manager)
        server.answer = (401, {"error": {"code": "refresh_token_reused"}})
        server.on_request = lambda: AuthFile(tmp_path).save(chatgpt("theirs", "r9"))
        await manager.refresh(login)
        assert access((await current(manager)).record) == "theirs"


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        ({"error": {"code": "refresh_token_expired"}}, "expired", "expired"),
        ({"error": "refresh_token_reused"}, "reused", "used before"),
        ({"code": "refresh_token_invalidated"}, "invalidated", "revoked"),
        ({"error": {"code": "something"}}, "other", "refuses"),
        ([], "other", "refuses"),
        (b"<html>", "other", "refuses"),
    ],
)
async def test_a_401_is_final_and_remembered(tmp_path: Path, content: Any, reason: str, said: str) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        server.answer = (401, content)
        login = await current(manager)
        texts = set()
        for _ in range(2):
            with pytest.raises(RefreshFailed, match=said) as caught:
                await manager.refresh(login)
            assert (caught.value.permanent, caught.value.reason) == (True, reason)
            texts.add(str(caught.value))
        assert len(texts) == 1
        assert len(server.requests) == 1
        # for that login only
        server.answer = TokenServer().answer
        AuthFile(tmp_path).save(chatgpt("again", "r5"))
        await manager.refresh(await current(manager))
        assert access(stored(tmp_path)) == "new"


@pytest.mark.parametrize("answer", [(500, {}), (429, {}), (400, {"error": "x"}), (200, b"no json"), (200, [])])
async def test_other_answers_pass(tmp_path: Path, answer: Any) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with token_server() as server, managed(tmp_path, server) as manager:
        server.answer = answer
        login = await current(manager)
        with pytest.raises(RefreshFailed, match="answered with status") as caught:
            await manager.refresh(login)
        assert not caught.value.permanent
        assert "secret" not in str(caught.value)
        server.answer = TokenServer().answer
        await manager.refresh(login)
        assert len(server.requests) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://127.0.0.1:99999999/x"])
async def test_nobody_there(tmp_path: Path, url: str) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with managed(tmp_path, TokenServer(url)) as manager:
        with pytest.raises(RefreshFailed) as caught:
            await manager.refresh(await current(manager))
        assert not caught.value.permanent


async def test_a_login_that_cannot_be_stored(tmp_path: Path) -> None:
    store = LoginStore(tmp_path, "ephemeral")
    await store.save(chatgpt())

    async def broken(record: AuthRecord) -> None:
        raise LoginStoreError("disk full")

    async with token_server() as server, managed(tmp_path, server, store=store) as manager:
        login = await current(manager)
        store.save = broken  # type: ignore[method-assign]
        await manager.refresh(login)  # the new tokens are the only ones that work now
        assert access((await current(manager)).record) == "new"


def test_where_tokens_are_renewed() -> None:
    assert token_url({}).startswith("https://")
    assert token_url({"CODEX_REFRESH_TOKEN_URL_OVERRIDE": " http://x "}) == "http://x"


# --- tokens of the host's -------------------------------------------------------------------------------


async def test_the_host_is_asked_once_for_everybody(tmp_path: Path) -> None:
    asked: list[str | None] = []

    async def external(previous: str | None) -> ExternalLogin:
        asked.append(previous)
        await trio.lowlevel.checkpoint()
        return ExternalLogin("second", "acc")

    async with managed(tmp_path, external=external) as manager:
        manager.use_tokens(ExternalLogin("first", "acc", "plus"))
        login = await current(manager)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.refresh, login)
            nursery.start_soon(manager.refresh, login)
        assert asked == ["acc"]
        assert (await current(manager)).request_auth().token == "second"
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [ExternalLogin("x", "other"), ValueError("no"), None])
async def test_a_host_that_cannot_help(tmp_path: Path, answer: Any) -> None:
    async def external(previous: str | None) -> ExternalLogin:
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, ExternalLogin)
        return answer

    async with managed(tmp_path, external=None if answer is None else external) as manager:
        manager.use_tokens(ExternalLogin("first", "acc"))
        with pytest.raises(RefreshFailed) as caught:
            await manager.refresh(await current(manager))
        assert caught.value.permanent is not isinstance(answer, Exception)


async def test_errors_of_the_block_come_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with managed(tmp_path):
            raise ValueError("mine")


def test_logins_show_no_secrets() -> None:
    login = Login(chatgpt("SECRET"))
    assert "SECRET" not in repr(login)
    assert "SECRET" not in repr(login.request_auth())
    assert attrs.fields(Login).record.repr is False


async def test_the_host_is_asked_before_the_first_request_once_for_everybody(tmp_path: Path) -> None:
    asked: list[str | None] = []
    AuthFile(tmp_path).save(chatgpt("stored"))

    async def external(previous: str | None) -> ExternalLogin:
        asked.append(previous)
        await trio.lowlevel.checkpoint()
        return ExternalLogin("first", "acc", "plus")

    async with managed(tmp_path, external=external, env={"OPENAI_API_KEY": "k"}) as manager:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.login)
            nursery.start_soon(manager.login)
        assert asked == [None]
        assert (await current(manager)).request_auth() == RequestAuth("first", "acc", backend=True)
        await manager.log_out()
        await manager.login()
        assert asked == [None, None]


async def test_a_host_without_tokens_is_told_so_and_asked_again(tmp_path: Path) -> None:
    answers: list[ExternalLogin | Exception] = [ValueError("not now"), ExternalLogin("first", "acc")]

    async def external(previous: str | None) -> ExternalLogin:
        await trio.lowlevel.checkpoint()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    AuthFile(tmp_path).save(AuthRecord(api_key="somebody else's"))
    async with managed(tmp_path, external=external) as manager:
        with pytest.raises(RefreshFailed, match="the host gave no tokens: not now"):
            await manager.login()
        assert (await current(manager)).request_auth().token == "first"


async def test_nothing_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    secrets = ("SECRET-ACCESS", "SECRET-REFRESH", "SECRET-NEW", "SECRET-KEY", "x=secret")
    AuthFile(tmp_path).save(chatgpt("SECRET-ACCESS", "SECRET-REFRESH"))
    async with token_server() as server, managed(tmp_path, server) as manager:
        login = await current(manager)
        for answer in (
            (500, {"refresh_token": "SECRET-REFRESH"}),
            (200, {"access_token": "SECRET-NEW", "refresh_token": "SECRET-REFRESH"}),
            (401, {"error": {"code": "refresh_token_reused", "message": "SECRET-REFRESH"}}),
        ):
            server.answer = answer
            with contextlib.suppress(RefreshFailed):
                await manager.refresh(login)
            login = await current(manager)
        (tmp_path / "auth.json").write_text('{"OPENAI_API_KEY": "SECRET-KEY", ')
        with pytest.raises(LoginStoreError) as caught:
            await manager.reload()
    assert len(server.requests) == 3
    told = "\n".join([caplog.text, repr(login), str(caught.value), repr(manager), repr(caught.value.__cause__)])
    assert [secret for secret in secrets if secret in told] == []


# --- what is known without asking ------------------------------------------------------------------


async def test_what_is_known_is_read_again_only_where_it_changed(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager:
        assert await manager.known() is None
        AuthFile(tmp_path).save(chatgpt())
        assert (await manager.known()) == (await manager.login())
        (tmp_path / "auth.json").write_text("no login")
        before = manager.cached
        assert before is not None
        assert await manager.known() == before  # the first request will say what is wrong


async def test_a_keyring_that_hangs_holds_nobody_up_for_long(tmp_path: Path) -> None:
    answer = threading.Event()

    class Hanging(FakeKeyring):
        def get_password(self, service: str, username: str) -> str | None:
            answer.wait(30)
            return super().get_password(service, username)

    store = LoginStore(tmp_path, "keyring", keyring=Hanging)
    try:
        async with managed(tmp_path, store=store) as manager:
            began = trio.current_time()
            assert await manager.known() is None
            assert await manager.known() is None
            assert trio.current_time() - began < 5
    finally:
        answer.set()


async def test_a_look_that_was_cancelled_is_taken_again(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(chatgpt())
    async with managed(tmp_path) as manager:
        with trio.CancelScope() as scope:
            scope.cancel()
            await manager.known()
        assert scope.cancelled_caught
        assert manager.cached is None
        assert await manager.known() == await manager.login()
