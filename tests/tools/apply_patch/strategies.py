"""Generators of patches: wild texts, nearly right texts, and right ones made from a file."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st

from engine.tools.apply_patch import ChunkLine, LineKind

__all__ = ["FileEdit", "file_edits", "file_texts", "near_patches"]

WORDS = st.sampled_from(["a", "b", "c", "", "  a", "a ", "\tb", " ", "“q”", '"q"', "a–b", "a-b", "@@", "é", "x\ry"])
PATHS = st.sampled_from(["f", "g", "h", "d/x", "./f", "d/../g"])
NEWLINES = st.sampled_from(["\n", "\r\n"])

_ODD_LINES = st.sampled_from(
    [
        "",
        " ",
        "\t",
        "\r",
        "zzz",
        "@@x",
        "*** End of File",
        "*** End of File ",
        "*** End Patch",
        "*** Begin Patch",
        "*** Environment ID: e",
        "*** Move to: m",
        "*** Move to:",
        " *** Add File: g",
        "*** Foo: x",
        "\u00a0",
        "\x1c",
    ]
)
_BODY_LINES = st.builds(str.__add__, st.sampled_from([" ", "-", "+"]), WORDS)
_MARKERS = st.sampled_from(["@@", "@@ a", "@@ ", "@@  b"])
_HEADERS = st.one_of(
    st.builds("*** Add File: {}".format, PATHS),
    st.builds("*** Delete File: {}".format, PATHS),
    st.builds("*** Update File: {}".format, PATHS),
)


@st.composite
def _hunks(draw: st.DrawFn) -> list[str]:
    lines = [draw(_HEADERS)]
    if lines[0].startswith("*** Add"):
        return lines + draw(st.lists(st.builds("+{}".format, WORDS), max_size=3))
    if lines[0].startswith("*** Update"):
        lines += draw(st.lists(st.builds("*** Move to: {}".format, PATHS), max_size=1))
        for _ in range(draw(st.integers(1, 3))):
            lines.append(draw(_MARKERS))
            lines += draw(st.lists(_BODY_LINES, min_size=1, max_size=4))
            lines += draw(st.lists(st.just("*** End of File"), max_size=1))
    return lines


@st.composite
def near_patches(draw: st.DrawFn) -> str:
    """A patch with up to three lines put where they may not belong."""
    lines = [line for hunk in draw(st.lists(_hunks(), max_size=3)) for line in hunk]
    for odd in draw(st.lists(_ODD_LINES, max_size=3)):
        lines.insert(draw(st.integers(0, len(lines))), odd)
    newline = draw(NEWLINES)
    return newline.join(["*** Begin Patch", *lines, "*** End Patch"])


@st.composite
def file_texts(draw: st.DrawFn) -> str:
    """A small file with any line endings, mixed ones and a missing last one included."""
    endings = st.sampled_from(["\n", "\n", "\r\n", "\r"])
    text = "".join(draw(WORDS) + draw(endings) for _ in range(draw(st.integers(0, 6))))
    return text.rstrip("\r\n") if draw(st.booleans()) else text


@attrs.frozen
class FileEdit:
    """A file, a patch of it that names every line up to the last chunk, and what must come out."""

    old: str
    patch: str
    new: str


@st.composite
def file_edits(draw: st.DrawFn) -> FileEdit:
    """A file with one kind of line ending, and a patch in several chunks that follow one another without a gap."""
    newline = draw(NEWLINES)
    words = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=6)
    old = draw(st.lists(words, max_size=12))
    ends_in_newline = not old or old[-1] == "" or draw(st.booleans())
    body: list[list[ChunkLine]] = []
    for line in old:
        lines = [ChunkLine(LineKind.ADD, text) for text in draw(st.lists(words, max_size=1))]
        lines.append(ChunkLine(draw(st.sampled_from([LineKind.CONTEXT, LineKind.REMOVE])), line))
        same_chunk = draw(st.booleans())
        if body and same_chunk:
            body[-1] += lines
        else:
            body.append(lines)
    tail = [ChunkLine(LineKind.ADD, text) for text in draw(st.lists(words, max_size=2))]
    if tail:
        body.append(tail)
    if not body:
        body.append([ChunkLine(LineKind.ADD, draw(words))])
    text = ["*** Begin Patch", "*** Update File: f"]
    for lines in body:
        text += ["@@", *(line.kind.value + line.text for line in lines)]
    kept = [line.text for lines in body for line in lines if line.kind is not LineKind.REMOVE]
    only = newline if len(old) > 1 or (old and ends_in_newline) else "\n"
    return FileEdit(
        old=newline.join(old) + (newline if old and ends_in_newline else ""),
        patch="\n".join([*text, "*** End Patch"]),
        new="".join(line + only for line in kept),
    )
