"""Patch text to `Patch`: knows no disk, and any text gives a patch or an `ApplyPatchError` (tools.md 2.2, 2.9)."""

from __future__ import annotations

from engine.tools.apply_patch.errors import InvalidHunk, InvalidPatch
from engine.tools.apply_patch.patch import AddFile, Chunk, ChunkLine, DeleteFile, Hunk, LineKind, Patch, UpdateFile

__all__ = ["BEGIN_MARKER", "END_MARKER", "WHITE_SPACE", "parse_patch"]

BEGIN_MARKER = "*** Begin Patch"
END_MARKER = "*** End Patch"
_ENVIRONMENT = "*** Environment ID:"
_ADD = "*** Add File: "
_DELETE = "*** Delete File: "
_UPDATE = "*** Update File: "
_MOVE = "*** Move to: "
_END_OF_FILE = "*** End of File"

# Unicode White_Space. `str.strip()` alone would also take the separators U+001C to U+001F, which are content here.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)

_FIRST_LINE = f"The first line of the patch must be '{BEGIN_MARKER}'"
_LAST_LINE = f"The last line of the patch must be '{END_MARKER}'"
_HEREDOC_STARTS = ("<<EOF", "<<'EOF'", '<<"EOF"')
_LINE_KINDS = {" ": LineKind.CONTEXT, "-": LineKind.REMOVE, "+": LineKind.ADD}


def parse_patch(text: str) -> Patch:
    """Parse one patch.

    White space around the text and a literal `<<EOF ... EOF` wrapper are accepted. Raises `InvalidPatch` for a wrong
    frame and `InvalidHunk` (with the line, counted from `*** Begin Patch` = 1) for a wrong hunk; nothing else, on any
    text. A patch without hunks is valid here; applying it fails.
    """
    _refuse_lone_surrogates(text)
    body = _body(_lines(text))
    parser = _HunkParser()
    for number, line in enumerate(body, start=2):
        parser.feed(line.removesuffix("\r"), number)
    parser.close(len(body) + 2)
    return Patch(parser.environment_id, tuple(parser.hunks))


def _refuse_lone_surrogates(text: str) -> None:
    """Text that has no UTF-8 form could be parsed but never written: say so before anything is touched."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            line = text.count("\n", 0, error.start) + 1
            raise InvalidPatch(f"The patch is not valid Unicode text (lone surrogate on line {line})") from None


def _lines(text: str) -> list[str]:
    stripped = text.strip(WHITE_SPACE)
    return [line.removesuffix("\r") for line in stripped.split("\n")] if stripped else []


def _body(lines: list[str]) -> list[str]:
    """The lines between the two markers; the markers themselves may be padded or wrapped in a literal heredoc."""
    problem = _frame_problem(lines)
    if problem is not None and len(lines) >= 4 and lines[0] in _HEREDOC_STARTS and lines[-1].endswith("EOF"):
        lines = lines[1:-1]
        problem = _frame_problem(lines)
    if problem is not None:
        raise InvalidPatch(problem)
    return lines[1:-1]


def _frame_problem(lines: list[str]) -> str | None:
    if lines and lines[0].strip(WHITE_SPACE) != BEGIN_MARKER:
        return _FIRST_LINE
    if not lines or lines[-1].strip(WHITE_SPACE) != END_MARKER:
        return _LAST_LINE
    return None


class _HunkParser:
    """Takes the lines between the markers one by one; `close` ends the last hunk."""

    def __init__(self) -> None:
        self.environment_id: str | None = None
        self.hunks: list[Hunk] = []
        self._add: _AddBody | None = None
        self._update: _UpdateBody | None = None
        self._ended = False

    def feed(self, line: str, number: int) -> None:
        if self._ended:
            # A second end marker is the frame's own; between the two only blank lines may stand.
            if line.strip(WHITE_SPACE):
                raise InvalidPatch(_LAST_LINE)
        elif self._add is not None and line.startswith("+"):
            self._add.lines.append(line[1:])
        elif self._update is not None and not self._update.ended_by(line):
            self._update.feed(line, number)
        elif not self._header(line, number):
            raise InvalidHunk(
                f"'{line.strip(WHITE_SPACE)}' is not a valid hunk header. Valid hunk headers: "
                "'*** Add File: {path}', '*** Delete File: {path}', '*** Update File: {path}'",
                number,
            )

    def close(self, number: int) -> None:
        if self._add is not None:
            self.hunks.append(AddFile(self._add.path, "".join(f"{line}\n" for line in self._add.lines)))
        if self._update is not None:
            self.hunks.append(self._update.finish(number))
        self._add = self._update = None

    def _header(self, raw: str, number: int) -> bool:
        line = raw.strip(WHITE_SPACE)
        if line == END_MARKER:
            self.close(number)
            self._ended = True
        elif line.startswith(_ADD):
            self.close(number)
            self._add = _AddBody(_path(line, _ADD))
        elif line.startswith(_DELETE):
            self.close(number)
            self.hunks.append(DeleteFile(_path(line, _DELETE)))
        elif line.startswith(_UPDATE):
            self.close(number)
            self._update = _UpdateBody(_path(line, _UPDATE), number)
        elif line.startswith(_ENVIRONMENT) and not self.hunks and self._add is None:
            self._environment(line)
        else:
            return False
        return True

    def _environment(self, line: str) -> None:
        if self.environment_id is not None:
            raise InvalidPatch("apply_patch environment_id cannot be specified more than once")
        self.environment_id = line.removeprefix(_ENVIRONMENT).strip(WHITE_SPACE)
        if not self.environment_id:
            raise InvalidPatch("apply_patch environment_id cannot be empty")


def _path(line: str, prefix: str) -> str:
    return line.removeprefix(prefix).strip(WHITE_SPACE)


def _is_header(line: str) -> bool:
    return line == END_MARKER or line.startswith((_ADD, _DELETE, _UPDATE))


class _AddBody:
    """An `*** Add File` hunk whose `+` lines are still coming."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: list[str] = []


class _UpdateBody:
    """An `*** Update File` hunk: an optional move line, then chunks."""

    def __init__(self, path: str, header_line: int) -> None:
        self._path = path
        self._header_line = header_line
        self._move_to: str | None = None
        self._chunks: list[Chunk] = []
        self._context: str | None = None
        self._lines: list[ChunkLine] = []
        self._open = False  # a marker or a line has begun a chunk that is not finished

    def ended_by(self, line: str) -> bool:
        """Whether the line is the next header rather than one of ours: never inside a chunk that has no line yet."""
        stripped = line.rstrip(WHITE_SPACE)
        return _is_header(stripped) and not (self._open and not self._lines and stripped != END_MARKER)

    def feed(self, line: str, number: int) -> None:
        stripped = line.rstrip(WHITE_SPACE)
        if self._open and self._lines:
            self._inside(line, stripped, number)
        elif self._open:
            self._first_line(line, stripped, number)
        elif self._chunks:
            self._between(line, stripped, number)
        else:
            self._before(line, stripped, number)

    def finish(self, number: int) -> UpdateFile:
        self._end_chunk(number)
        if not self._chunks:
            raise InvalidHunk(f"Update file hunk for path '{self._path}' is empty", self._header_line)
        return UpdateFile(self._path, self._move_to, tuple(self._chunks))

    def _before(self, line: str, stripped: str, number: int) -> None:
        if stripped.startswith(_MOVE) and self._move_to is None:
            self._move_to = _path(stripped, _MOVE)
        elif stripped != _END_OF_FILE and not self._marker(stripped):
            self._first_line(line, stripped, number)

    def _first_line(self, line: str, stripped: str, number: int) -> None:
        if stripped == _END_OF_FILE:
            self._end_chunk(number)
        elif not self._content(line):
            raise InvalidHunk(
                f"Unexpected line found in update hunk: '{line}'. Every line should start with ' ' (context line), "
                "'+' (added line), or '-' (removed line)",
                number,
            )

    def _inside(self, line: str, stripped: str, number: int) -> None:
        if stripped == _END_OF_FILE:
            self._end_chunk(number, end_of_file=True)
        elif not self._content(line) and not self._marker(stripped):
            raise _expected_marker(line, number)

    def _between(self, line: str, stripped: str, number: int) -> None:
        if stripped and not self._marker(stripped):
            raise _expected_marker(line, number)

    def _content(self, line: str) -> bool:
        if not line:
            self._lines.append(ChunkLine(LineKind.CONTEXT, ""))
        elif (kind := _LINE_KINDS.get(line[0])) is not None:
            self._lines.append(ChunkLine(kind, line[1:]))
        else:
            return False
        self._open = True
        return True

    def _marker(self, stripped: str) -> bool:
        if stripped != "@@" and not stripped.startswith("@@ "):
            return False
        self._end_chunk(0)
        self._context = stripped[3:] or None
        self._open = True
        return True

    def _end_chunk(self, number: int, *, end_of_file: bool = False) -> None:
        if not self._open:
            return
        if not self._lines:
            raise InvalidHunk("Update hunk does not contain any lines", number)
        self._chunks.append(Chunk(self._context, tuple(self._lines), end_of_file))
        self._context, self._lines, self._open = None, [], False


def _expected_marker(line: str, number: int) -> InvalidHunk:
    return InvalidHunk(f"Expected update hunk to start with a @@ context marker, got: '{line}'", number)
