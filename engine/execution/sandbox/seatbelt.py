"""A layout as a profile of macOS's `sandbox-exec` (tools.md 6.7). Pure.

The last rule that matches decides, and a layout goes from shallow to deep, so the one becomes the other mount by mount.
Paths are parameters, so that none has to be quoted. Rules hold for paths that do not exist yet, so there are no
placeholders, and globs become expressions instead of lists of files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from engine.execution.sandbox.layout import Layout, Mount
from engine.records import frozen

__all__ = ["SANDBOX_EXEC", "SeatbeltProfile", "glob_expressions", "seatbelt_profile"]

SANDBOX_EXEC = "/usr/bin/sandbox-exec"

# What any program needs to run at all; everything else is refused.
_BASE = """\
(version 1)
(deny default)
(allow process-exec)
(allow process-fork)
(allow signal (target same-sandbox))
(allow process-info* (target same-sandbox))
(allow sysctl-read)
(allow ipc-posix-sem)
(allow user-preference-read)
(allow pseudo-tty)
(allow mach-lookup (global-name "com.apple.system.opendirectoryd.libinfo"))
(allow mach-lookup (global-name "com.apple.PowerManagement.control"))
(allow iokit-open (iokit-registry-entry-class "RootDomainUserClient"))"""

# Reading these says nothing about the user; they are what `minimal` means to the loader.
_ALWAYS_READABLE = ("/usr/lib", "/System/Library", "/System/Volumes/Preboot", "/private/var/db/dyld")

_DEVICES = """\
(allow file-read* file-write-data file-ioctl
  (literal "/dev/null") (literal "/dev/zero") (literal "/dev/random") (literal "/dev/urandom") (literal "/dev/tty")
  (literal "/dev/ptmx") (regex #"^/dev/ttys[0-9]+$"))
(allow file-read-metadata (subpath "/dev"))"""

_NETWORK = """\
(allow network-outbound)
(allow network-inbound)
(allow system-socket)
(allow mach-lookup (global-name "com.apple.SecurityServer"))
(allow mach-lookup (global-name "com.apple.networkd"))
(allow mach-lookup (global-name "com.apple.ocspd"))
(allow mach-lookup (global-name "com.apple.trustd.agent"))
(allow mach-lookup (global-name "com.apple.SystemConfiguration.DNSConfiguration"))
(allow mach-lookup (global-name "com.apple.SystemConfiguration.configd"))"""


@frozen
class SeatbeltProfile:
    """The text of a profile, and its parameters in order."""

    text: str
    parameters: tuple[tuple[str, str], ...]

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command under the profile."""
        definitions = (f"-D{name}={value}" for name, value in self.parameters)
        return [SANDBOX_EXEC, "-p", self.text, *definitions, "--", *command]


def seatbelt_profile(
    layout: Layout | None, *, unreadable_globs: Iterable[str] = (), denied_later: Iterable[str] = (), network: bool
) -> SeatbeltProfile:
    """The profile for a layout; None: every file may be read and written.

    `denied_later` are paths that do not exist, and can't be read or written once they do.
    """
    parameters: list[tuple[str, str]] = []

    def parameter(path: str) -> str:
        name = f"PATH_{len(parameters)}"
        parameters.append((name, path))
        return f'(param "{name}")'

    parts = [_BASE]
    if layout is None:
        parts.append("(allow file-read* file-write* file-ioctl)")
    else:
        if layout.whole_disk:
            parts.append("(allow file-read*)")
        else:
            parts.append('(allow file-read-metadata (literal "/"))')
            parts += (f'(allow file-read* (subpath "{path}"))' for path in _ALWAYS_READABLE)
        parts += (rule for mount in layout.mounts for rule in _rules(mount, parameter(mount.source or mount.path)))
        parts += (f"(deny file-read* file-write* (subpath {parameter(path)}))" for path in denied_later)
        expressions = (expression for glob in unreadable_globs for expression in glob_expressions(glob))
        parts += (f'(deny file-read* file-write* (regex #"{expression}"))' for expression in expressions)
        parts.append(_DEVICES)
    if network:
        parts.append(_NETWORK)
    return SeatbeltProfile("\n".join(parts) + "\n", tuple(parameters))


def _rules(mount: Mount, path: str) -> Iterator[str]:
    match mount.kind:
        case "write":
            yield f"(allow file-read* file-write* (subpath {path}))"
        case "read":
            yield f"(allow file-read* (subpath {path}))"
            yield f"(deny file-write* (subpath {path}))"
        case "hidden_folder" | "hidden_file":
            yield f"(deny file-read* file-write* (subpath {path}))"
            if mount.open_below:
                yield f"(allow file-read-metadata (literal {path}))"
        case "placeholder_folder" | "placeholder_file":
            yield f"(deny file-write* (subpath {path}))"
    # Whatever has a rule of its own must keep its name, or the rule would be about something else.
    yield f"(deny file-write-unlink (literal {path}))"


def glob_expressions(glob: str) -> list[str]:
    """An absolute glob as regular expressions for whole paths, one per alternative (permissions.md 4.7)."""
    made = []
    for text in _alternatives(glob):
        parts = [_component(part) for part in text.split("/") if part]
        last = len(parts) - 1
        expressions = [
            f"/{part}" if part is not None else "(/[^/]+)*" if at < last else "/.+" for at, part in enumerate(parts)
        ]
        made.append(f"^{''.join(expressions)}$")
    return made


def _alternatives(text: str) -> list[str]:
    """The text for each choice of what stands in braces."""
    level, start, cuts = 0, 0, []
    for at, letter in enumerate(text):
        if letter not in "{,}" or text[:at].endswith("\\"):
            continue
        if letter == "{":
            level += 1
            if level == 1:
                start, cuts = at, [at]
        elif letter == "," and level == 1:
            cuts.append(at)
        elif letter == "}" and level:
            level -= 1
            if level == 0:
                cuts.append(at)
                choices = [text[cut + 1 : end] for cut, end in itertools.pairwise(cuts)]
                return [made for choice in choices for made in _alternatives(text[:start] + choice + text[at + 1 :])]
    return [text]


def _component(part: str) -> str | None:
    """One component; None for `**`. What an expression can't say is widened to any character."""
    if part == "**":
        return None
    return "".join(map(_piece, re.findall(r"\\.|\[[!^]?[^\]/]+\]|\*+|.", part, re.DOTALL)))


def _piece(piece: str) -> str:
    if piece[0] == "*":
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if piece[0] == "[" and len(piece) > 1:
        return "[^/]" if '"' in piece or "\\" in piece else piece.replace("[!", "[^", 1)
    letter = piece[-1]
    return "[^/]" if letter == '"' or not letter.isprintable() else re.escape(letter)
