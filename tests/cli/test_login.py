"""`engine login`, `engine logout`, `engine models list`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from engine.auth.storage import AuthFile
from engine.cli.main import main
from tests.auth.logins import chatgpt


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CODEX_HOME", str(tmp_path))
    for name in ("OPENAI_API_KEY", "CODEX_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_key_from_stdin(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["login", "status"]) == 1
    assert capsys.readouterr().out == "Not logged in.\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("SECRET\n"))
    assert main(["login", "--with-api-key"]) == 0
    assert main(["login", "status"]) == 0
    said = capsys.readouterr()
    assert said.out == "Logged in with an API key.\n"
    assert "SECRET" not in said.err
    stored = AuthFile(home).load()
    assert stored is not None
    assert stored.api_key == "SECRET"
    assert main(["logout"]) == 0
    assert main(["logout"]) == 0
    assert capsys.readouterr().err == "Logged out.\nThere was no login.\n"
    assert not (home / "auth.json").exists()


def test_an_empty_key_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["login", "--with-api-key"]) == 1
    assert capsys.readouterr().err == "error: the API key is empty\n"


def test_who_a_chatgpt_login_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AuthFile(home).save(chatgpt(last_refresh="2999-01-01T00:00:00Z"))
    assert main(["login", "status"]) == 0
    assert capsys.readouterr().out == "Logged in with ChatGPT as me@example.com (plus).\n"


def test_a_forbidden_login_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "auth.json").write_text('{"OPENAI_API_KEY": "k"}')
    assert main(["login", "status", "-c", "forced_login_method=chatgpt"]) == 1
    assert capsys.readouterr().err.startswith("error: `forced_login_method` asks for a ChatGPT login")


@pytest.mark.parametrize("words", [["login"], ["login", "--device-auth"]])
def test_a_login_that_needs_a_browser_says_what_there_is_instead(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "a login in the browser or by a device code is not supported: store a key (`--with-api-key`)" in said
    assert "whose login is used and renewed here" in said


@pytest.mark.parametrize("words", [["login"], ["login", "--with-api-key", "status"], ["login", "x"], ["logout", "x"]])
def test_words_that_make_no_sense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "gpt-5.5"
    assert main(["models", "list", "--all", "--json"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(entries) == len(lines) + 1
    assert entries[0]["context_window"] == 272_000
    assert entries[0]["reasoning_efforts"] == ["low", "medium", "high", "xhigh"]
    assert main(["models", "list", "--model-provider", "nobody"]) == 1
    assert "Model provider `nobody` not found" in capsys.readouterr().err
    assert main(["models"]) == 2
