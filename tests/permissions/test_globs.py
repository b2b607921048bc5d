"""The glob language: its rules one by one, a naive matcher beside it, and patterns that must not take forever."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.permissions.globs import GlobError, compile_glob, has_glob_characters
from engine.protocol.paths import normal_path


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("/a/*.env", ["/a/.env", "/a/x.env"], ["/a/b/x.env", "/a/x.envy", "/x.env", "/a"]),
        ("/a/?", ["/a/b", "/a/日"], ["/a/", "/a/bc", "/a/b/c"]),
        ("/a/**", ["/a/b", "/a/b/c"], ["/a", "/ab", "/"]),
        ("/a/**/*.env", ["/a/.env", "/a/b/c/x.env"], ["/a", "/b/.env"]),
        ("/**/x", ["/x", "/a/b/x"], ["/xx", "/a/x/b"]),
        ("/a/**/**/b", ["/a/b", "/a/c/b"], ["/a"]),
        ("/a/x**y", ["/a/xy", "/a/x--y"], ["/a/x/y"]),
        ("/[a-c]", ["/a", "/c"], ["/d", "/-"]),
        ("/[!a-c]", ["/d", "/-"], ["/a"]),
        ("/[^a]x", ["/bx"], ["/ax"]),
        ("/[]a]", ["/]", "/a"], ["/b"]),
        ("/[a-]", ["/a", "/-"], ["/b"]),
        ("/[&&--||~~]", ["/&", "/|", "/~", "/-"], ["/a"]),
        ("/a[b", ["/a[b"], ["/ab"]),
        ("/{a,b}/c", ["/a/c", "/b/c"], ["/c", "/{a,b}/c"]),
        ("/x{,y,{z,*.k}}", ["/x", "/xy", "/xz", "/xq.k"], ["/xyz"]),
        ("/a{/b,}/c", ["/a/b/c", "/a/c"], ["/a/b"]),
        ("/a,b", ["/a,b"], ["/a"]),
        (r"/\*\{\\", [r"/*{" + "\\"], ["/a{"]),
        ("/a.b+(c)", ["/a.b+(c)"], ["/axb"]),
    ],
)
def test_the_language(glob: str, matching: list[str], other: list[str]) -> None:
    compiled = compile_glob(glob)
    assert [path for path in matching if not compiled.matches(path)] == []
    assert [path for path in other if compiled.matches(path)] == []


@pytest.mark.parametrize(
    "glob", ["/{a", "/a}", "/{a,{b}", "/[z-a]", "/a\\", "/" + "{a,b}" * 13, "/" + "{" * 17 + "}" * 17]
)
def test_globs_without_a_meaning(glob: str) -> None:
    with pytest.raises(GlobError) as caught:
        compile_glob(glob)
    assert caught.value.glob == glob
    assert glob in str(caught.value)


names = st.text(st.sampled_from("ab.*?"), min_size=1, max_size=4)
globs = st.lists(names, min_size=1, max_size=4).map(lambda parts: normal_path("/" + "/".join(parts)))
paths = st.lists(st.text(st.sampled_from("ab."), min_size=1, max_size=4), max_size=4).map(
    lambda parts: normal_path("/" + "/".join(parts))
)


@given(globs, paths)
def test_a_naive_matcher_agrees(glob: str, path: str) -> None:
    assert compile_glob(glob).matches(path) == naive(
        glob[1:].split("/"), [name for name in path[1:].split("/") if name]
    )


def naive(pattern: list[str], names: list[str]) -> bool:
    if not pattern or pattern == [""]:
        return not names
    head, *rest = pattern
    if head == "**":
        least = 1 if not rest else 0
        return any(naive(rest, names[taken:]) for taken in range(least, len(names) + 1))
    return bool(names) and naive_name(head, names[0]) and naive(rest, names[1:])


def naive_name(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(naive_name(pattern[1:], name[taken:]) for taken in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and naive_name(pattern[1:], name[1:])


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_text_matches_or_is_refused(glob: str, path: str) -> None:
    try:
        compiled = compile_glob(normal_path(f"/{glob}"))
    except GlobError:
        return
    assert compiled.matches(normal_path(f"/{path}")) in (True, False)
    plain = not set("*?[]{}\\,") & set(glob)
    if plain:
        assert compiled.matches(normal_path(f"/{glob}"))


def test_patterns_take_no_exponential_time() -> None:
    began = time.process_time()
    compiled = compile_glob("/" + "a*" * 30 + "b")
    assert not compiled.matches("/" + "a" * 2000)
    deep = compile_glob("/**/a" * 30 + "/b")
    assert not deep.matches("/a" * 200)
    assert time.process_time() - began < 5


def test_what_configuration_takes_for_a_glob() -> None:
    assert all(map(has_glob_characters, ("a*", "a?", "[", "]")))
    assert not has_glob_characters("/a/{b,c}")
