"""Where logins are kept: the file, the keyring, both, memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.auth.errors import LoginStoreError
from engine.auth.record import AuthRecord
from engine.auth.storage import SERVICE, AuthFile, LoginStore, keyring_account, library_keyring
from tests.auth.logins import FakeKeyring, chatgpt

KEY = AuthRecord(auth_mode="apikey", api_key="k")
OTHER = AuthRecord(auth_mode="apikey", api_key="other")


def store(home: Path, mode: Any, keyring: Any = None, **more: Any) -> LoginStore:
    return LoginStore(home, mode, keyring=lambda: keyring, **more)


async def test_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    kept = LoginStore(tmp_path / "new" / "home")
    path = tmp_path / "new" / "home" / "auth.json"
    assert await kept.load() is None
    before = kept.identity()
    await kept.save(KEY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept.identity() != before
    assert await kept.load() == KEY
    path.chmod(0o644)
    await kept.save(chatgpt())
    assert path.stat().st_mode & 0o777 == 0o600
    assert await kept.load() == chatgpt()
    assert [one.name for one in path.parent.iterdir()] == ["auth.json"]
    assert await kept.delete()
    assert not await kept.delete()


async def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "auth.json").symlink_to(tmp_path / "real.json")
    await LoginStore(tmp_path).save(KEY)
    assert (tmp_path / "auth.json").is_symlink()
    assert "k" in (tmp_path / "real.json").read_text()


async def test_a_file_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "auth.json").mkdir()
    kept = LoginStore(tmp_path)
    with pytest.raises(LoginStoreError, match=r"auth\.json can't be read"):
        await kept.load()
    with pytest.raises(LoginStoreError, match=r"auth\.json can't be written"):
        await kept.save(KEY)
    with pytest.raises(LoginStoreError, match=r"auth\.json can't be removed"):
        await kept.delete()
    assert [one.name for one in tmp_path.iterdir()] == ["auth.json"]


async def test_the_keyring_takes_the_place_of_the_file(tmp_path: Path) -> None:
    AuthFile(tmp_path).save(OTHER)
    keyring = FakeKeyring()
    kept = store(tmp_path, "keyring", keyring)
    assert await kept.load() is None  # the file is not looked at
    await kept.save(KEY)
    assert not (tmp_path / "auth.json").exists()
    assert await kept.load() == KEY
    ((service, account),) = keyring.secrets
    digest = hashlib.sha256(os.fsencode(os.path.realpath(tmp_path))).hexdigest()
    assert (service, account) == ("Codex Auth", f"cli|{digest[:16]}")
    assert await kept.delete()
    assert keyring.secrets == {}
    assert not await kept.delete()


def test_homes_are_told_apart_by_where_they_really_are(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert keyring_account(tmp_path / "a") == keyring_account(tmp_path / "b")
    assert keyring_account(tmp_path / "a") != keyring_account(tmp_path)


async def test_auto_prefers_the_keyring(tmp_path: Path) -> None:
    keyring = FakeKeyring()
    kept = store(tmp_path, "auto", keyring)
    AuthFile(tmp_path).save(OTHER)
    assert await kept.load() == OTHER  # nothing in the keyring yet
    await kept.save(KEY)
    assert not (tmp_path / "auth.json").exists()
    assert await kept.load() == KEY
    AuthFile(tmp_path).save(OTHER)
    assert await kept.delete()
    assert await kept.load() is None


async def test_auto_writes_the_file_where_the_keyring_fails(tmp_path: Path) -> None:
    kept = store(tmp_path, "auto", FakeKeyring(RuntimeError("no bus")))
    assert await kept.load() is None
    await kept.save(KEY)
    assert (tmp_path / "auth.json").stat().st_mode & 0o777 == 0o600
    assert await kept.load() == KEY
    assert await kept.delete()


@pytest.mark.parametrize("method", ["load", "save", "delete"])
async def test_a_keyring_that_fails_is_an_error_where_it_is_asked_for(tmp_path: Path, method: str) -> None:
    kept = store(tmp_path, "keyring", FakeKeyring(RuntimeError("no bus")))
    with pytest.raises(LoginStoreError, match=r"keyring entry `Codex Auth` can't be \w+: no bus"):
        await getattr(kept, method)(*([KEY] if method == "save" else []))
    assert list(tmp_path.iterdir()) == []


async def test_what_the_keyring_holds_may_be_no_login(tmp_path: Path) -> None:
    keyring = FakeKeyring()
    keyring.secrets[SERVICE, keyring_account(tmp_path)] = "{"
    with pytest.raises(LoginStoreError, match="keyring entry `Codex Auth` is not valid JSON"):
        await store(tmp_path, "keyring", keyring).load()
    AuthFile(tmp_path).save(KEY)
    assert await store(tmp_path, "auto", keyring).load() == KEY


async def test_a_keyring_that_hangs_is_asked_once(tmp_path: Path) -> None:
    release = threading.Event()
    keyring = FakeKeyring()

    def hang(service: str, username: str) -> str | None:
        keyring.calls.append("get")
        release.wait(10)
        return None

    keyring.get_password = hang  # type: ignore[method-assign]
    kept = store(tmp_path, "auto", keyring, deadline=0.05)
    try:
        assert await kept.load() is None
        await kept.save(KEY)
        assert await kept.load() == KEY
        assert keyring.calls == ["get"]
        strict = store(tmp_path, "keyring", keyring, deadline=0.05)
        with pytest.raises(LoginStoreError, match=r"did not answer within 0\.05 s"):
            await strict.load()
    finally:
        release.set()


async def test_memory(tmp_path: Path) -> None:
    kept = store(tmp_path, "ephemeral")
    AuthFile(tmp_path).save(OTHER)
    assert await kept.load() is None
    await kept.save(KEY)
    assert await kept.load() == KEY
    assert await kept.delete()
    assert await kept.load() is None
    assert not (tmp_path / "auth.json").exists()  # a logout is one from everywhere


def test_without_the_package_the_keyring_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(LoginStoreError, match=r"session-engine\[keyring\]"):
        library_keyring()


REAL = """
import sys, pathlib, trio
import keyring, keyring.backend
class Memory(keyring.backend.KeyringBackend):
    priority = 1
    secrets = {}
    def get_password(self, service, username): return self.secrets.get((service, username))
    def set_password(self, service, username, password): self.secrets[service, username] = password
    def delete_password(self, service, username): del self.secrets[service, username]
keyring.set_keyring(Memory())
from engine.auth.record import AuthRecord
from engine.auth.storage import LoginStore
async def main():
    store = LoginStore(pathlib.Path(sys.argv[1]), "keyring")
    await store.save(AuthRecord(api_key="k"))
    assert (await store.load()).api_key == "k"
    assert await store.delete() and not await store.delete()
trio.run(main)
"""


def test_the_real_package(tmp_path: Path) -> None:
    pytest.importorskip("keyring")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", REAL, str(tmp_path)], check=True, env=environment)
