"""Facts of repositories, compared with what git itself says; and damaged repositories."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.git_info import find_git_root, read_git_info
from engine.protocol.settings import GitInfo


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    env = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    git(folder, "remote", "add", "other", "https://example.org/other.git")
    git(folder, "remote", "add", "origin", "https://example.org/a b;c.git")
    return folder


def test_outside_of_a_repository(tmp_path: Path) -> None:
    assert find_git_root(str(tmp_path)) is None
    assert read_git_info(str(tmp_path)) is None


def test_a_repository(repository: Path) -> None:
    below = repository / "a" / "b"
    below.mkdir(parents=True)
    expected = GitInfo(
        commit_hash=git(repository, "rev-parse", "HEAD"),
        branch="main",
        repository_url=git(repository, "remote", "get-url", "origin"),
    )
    assert find_git_root(str(below)) == str(repository)
    assert read_git_info(str(below)) == expected
    git(repository, "pack-refs", "--all")
    assert not (repository / ".git/refs/heads/main").exists()
    assert read_git_info(str(below)) == expected


def test_no_commit_yet(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert read_git_info(str(tmp_path)) == GitInfo(branch="main")


def test_a_detached_head(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    info = read_git_info(str(repository))
    assert info is not None
    assert (info.branch, info.commit_hash) == (None, git(repository, "rev-parse", "HEAD"))


def test_branches_with_slashes_and_other_letters(repository: Path) -> None:
    git(repository, "checkout", "-q", "-b", "feature/größe")
    info = read_git_info(str(repository))
    assert info is not None
    assert info.branch == "feature/größe"


def test_a_worktree_has_its_own_head(repository: Path) -> None:
    worktree = repository.parent / "worktree"
    git(repository, "worktree", "add", "-q", "-b", "side", str(worktree))
    git(worktree, "commit", "-q", "--allow-empty", "-m", "two")
    assert read_git_info(str(worktree)) == GitInfo(
        commit_hash=git(worktree, "rev-parse", "HEAD"),
        branch="side",
        repository_url="https://example.org/a b;c.git",
    )


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ('[remote "origin"]\n\turl = https://a/b.git\n', "https://a/b.git"),
        ('[REMOTE "origin"]\n\tURL=https://a/b.git # a comment\n', "https://a/b.git"),
        ('[remote "origin"] url = "https://a/#b"\n', "https://a/#b"),
        ('[remote "origin"]\n\turl = C:\\\\a\n', "C:\\a"),
        ('[remote "Origin"]\n\turl = x\n[branch "main"]\n\turl = y\n', None),
        ('[remote "origin"]\n\tfetch = +refs\n\turl =\n', None),
        ("garbage [[[\0", None),
    ],
)
def test_the_origin_of_a_configuration(tmp_path: Path, config: str, url: str | None) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text(config)
    info = read_git_info(str(tmp_path))
    assert info is not None
    assert info.repository_url == url


def test_a_fifo_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git/HEAD")
    assert read_git_info(str(tmp_path)) == GitInfo()


@given(st.sampled_from([".git", "HEAD", "config", "packed-refs", "commondir"]), st.binary(max_size=60))
def test_damaged_files_never_raise(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if name == ".git":
            (root / ".git").write_bytes(content)
        else:
            (root / ".git").mkdir()
            (root / ".git/HEAD").write_text("ref: refs/heads/main\n")
            (root / ".git" / name).write_bytes(content)
        info = read_git_info(folder)
    assert info is not None
    for text in (info.commit_hash, info.branch, info.repository_url):
        assert text is None or text.encode()


@given(st.sampled_from(["gitdir: ", "ref: ", "ref: refs/heads/", ""]), st.text(max_size=20))
def test_damaged_pointers_never_raise(prefix: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "git").mkdir()
        (root / ".git").write_text("gitdir: git")
        (root / "git/HEAD").write_bytes((prefix + text).encode("utf-8", "surrogatepass"))
        info = read_git_info(folder)
    assert info is not None


def test_references_cannot_lead_out_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a" * 40)
    (tmp_path / "r/.git/refs").mkdir(parents=True)
    (tmp_path / "r/.git/HEAD").write_text("ref: refs/../../../secret\n")
    assert read_git_info(str(tmp_path / "r")) == GitInfo()
