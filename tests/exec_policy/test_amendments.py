"""Rules that users agree to, saved: whole lines, once, under a lock; a failure leaves the file as it was."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.exec_policy import amendments
from engine.exec_policy.amendments import append_network_rule, append_prefix_rule, default_rules_file
from engine.exec_policy.errors import AmendmentError
from engine.exec_policy.rules import NetworkRule, PrefixRule
from engine.exec_policy.rules_file import read_rules

LINE = 'prefix_rule(pattern=["git", "push"], decision="allow")\n'


def test_a_rule_is_written_once_and_its_folder_made(tmp_path: Path) -> None:
    file = default_rules_file(tmp_path)
    assert append_prefix_rule(file, ["git", "push"])
    assert not append_prefix_rule(file, ["git", "push"])
    assert file.read_text() == LINE


def test_a_missing_newline_is_added(tmp_path: Path) -> None:
    file = default_rules_file(tmp_path)
    file.parent.mkdir()
    file.write_text("# no newline")
    append_prefix_rule(file, ["git", "push"])
    assert file.read_text() == f"# no newline\n{LINE}"


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=8), min_size=1, max_size=4))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_come_back_as_the_same_rule(tmp_path: Path, words: list[str]) -> None:
    file = tmp_path / "my.rules"
    file.unlink(missing_ok=True)
    append_prefix_rule(file, words, "prompt")
    assert file.read_bytes().count(b"\n") == 1
    assert read_rules(file.read_text(), file="my.rules").prefix_rules == (PrefixRule.for_words(words, "prompt"),)


def test_a_network_rule_comes_back_as_the_same_rule(tmp_path: Path) -> None:
    file = tmp_path / "my.rules"
    assert append_network_rule(file, " Example.com:443", "https", "forbidden", 'says "no"')
    assert not append_network_rule(file, "example.com", "https", "forbidden", 'says "no"')
    assert read_rules(file.read_text(), file="my.rules").network_rules == (
        NetworkRule("example.com", "https", "forbidden", 'says "no"'),
    )


@pytest.mark.parametrize(("host", "reason"), [("*.example.com", None), ("example.com", " ")])
def test_what_makes_no_network_rule_is_refused(tmp_path: Path, host: str, reason: str | None) -> None:
    with pytest.raises(AmendmentError, match="no rule can be made"):
        append_network_rule(tmp_path / "my.rules", host, "https", "allow", reason)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["\udcff"]])
def test_what_makes_no_rule_is_refused(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(AmendmentError):
        append_prefix_rule(tmp_path / "my.rules", words)
    assert list(tmp_path.iterdir()) == []


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    file = default_rules_file(tmp_path)
    writers = [threading.Thread(target=append_prefix_rule, args=(file, ["run", str(n % 8)])) for n in range(24)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = file.read_text().splitlines()
    assert sorted(lines) == [f'prefix_rule(pattern=["run", "{n}"], decision="allow")' for n in range(8)]


def test_a_lock_of_somebody_else_is_waited_for_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amendments, "_LOCK_SECONDS", 0.05)
    file = tmp_path / "my.rules"
    file.write_text("")
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AmendmentError, match="another program has it locked"):
            append_prefix_rule(file, ["a"])
    assert append_prefix_rule(file, ["a"])


def test_links_folders_and_pipes_are_not_written_to(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "link.rules").symlink_to(target)
    (tmp_path / "folder.rules").mkdir()
    os.mkfifo(tmp_path / "pipe.rules")
    for name in ("link.rules", "folder.rules", "pipe.rules", "target/rules/default.rules", "no/folder/x.rules"):
        with pytest.raises(AmendmentError) as caught:
            append_prefix_rule(tmp_path / name, ["a"])
        assert caught.value.file == str(tmp_path / name)
    assert target.read_text() == ""


@pytest.mark.parametrize("partial", [True, False])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: bool) -> None:
    file = tmp_path / "my.rules"
    file.write_text(LINE)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if partial:
            return write(descriptor, data[:5])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AmendmentError, match="No space left"):
        append_prefix_rule(file, ["a"])
    assert file.read_text() == LINE
