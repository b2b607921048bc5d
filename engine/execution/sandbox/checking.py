"""Checking from inside that everything is mounted where it has to be, before the command itself runs.

bwrap looks up what it mounts by names. Where other commands may write, one of them can put a link in the place of a
folder between two of those look-ups, and have a writable mount appear somewhere else; no option of bwrap prevents that.
What has been mounted can't be changed from outside any more, so it is enough to look at it once: a few lines for the
shell, which compare `/proc/self/mountinfo` with what the layout asks for. Only done where something writable has to be
mounted from a place that is not safe from this (`Layout.has_loose_mounts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from engine.execution.sandbox.layout import Layout
from engine.execution.sandbox.resolving import is_below
from engine.records import frozen

__all__ = ["PROGRAMS", "HostMount", "check_arguments", "read_mounts"]

PROGRAMS = ("/bin/sh", "/bin/cat")  # what it takes

# Arguments: `whole` or `empty`, what the view begins with; one line per writable place (its device, its place on that,
# its place in the sandbox); how many mounts there must be; their places; the command.
#
# A writable mount has to be one of the places, or the same part of it: another part of the device at that place, or the
# same part at another place, was put there by somebody. What can't be entered at all is left alone: bwrap can't make
# foreign FUSE mounts read-only.
_CHECK = r"""
set -f
nl='
'
base=$1 places=$2 count=$3 seen=$nl
shift 3
fail() {
    echo "sandbox: $1 is not mounted as it has to be; try again" >&2
    exit 126
}
# Not `read`, which asks the kernel for every single byte.
lines=$(/bin/cat /proc/self/mountinfo) || fail /proc
IFS=$nl
for line in $lines; do
    rest=${line#* } # the number of the mount, then that of its parent
    rest=${rest#* }
    device=${rest%% *} rest=${rest#* }
    root=${rest%% *} rest=${rest#* }
    point=${rest%% *} rest=${rest#* }
    seen=$seen$point$nl
    case $rest in "rw "* | rw,*) ;; *) continue ;; esac
    case $point in /dev | /dev/* | /proc | /proc/*) continue ;; esac
    case $base$point in empty/) continue ;; esac
    case $point in *\\*) ;; *) [ -x "$point" ] || continue ;; esac
    found= root=${root%/} at_point=${point%/}
    for place in $places; do
        [ "$device" = "${place%% *}" ] || continue
        on=${place#* }
        on=${on% *}
        on=${on%/}
        at=${place##* }
        at=${at%/}
        case $root in "$on" | "$on"/*) ;; *) continue ;; esac
        case $at_point in "$at" | "$at"/*) ;; *) continue ;; esac
        [ "${root#"$on"}" = "${at_point#"$at"}" ] && found=yes
    done
    [ "$found" ] || fail "$point"
done
unset IFS
while [ "$count" -gt 0 ]; do
    case $seen in *"$nl$1$nl"*) ;; *) fail "$1" ;; esac
    shift
    count=$((count - 1))
done
exec "$@"
"""


@frozen
class HostMount:
    """A line of `/proc/self/mountinfo`, as it is written there: blanks and the like stand as `\\040`."""

    device: str
    root: str
    point: str


def read_mounts(mountinfo: str) -> tuple[HostMount, ...]:
    """The mounts of a process, in their order."""
    lines = (line.split(" ") for line in mountinfo.splitlines())
    return tuple(HostMount(fields[2], fields[3], fields[4]) for fields in lines if len(fields) > 4)


def check_arguments(layout: Layout, mounts: Sequence[HostMount], *, without: Sequence[str] = ()) -> list[str]:
    """What to put before a command. `mounts` are those of the host; `without` are placeholders that are left out."""
    writable = [mount.path for mount in layout.mounts if mount.kind == "write" and not mount.loose]
    places = dict.fromkeys(place for path in writable for place in _places(_escape(path), mounts))
    required = [_escape(mount.path) for mount in layout.mounts if mount.path not in ("/", *without)]
    base = "whole" if layout.whole_disk else "empty"
    return [PROGRAMS[0], "-c", _CHECK, "sh", base, "\n".join(places), str(len(required)), *required]


def _places(path: str, mounts: Sequence[HostMount]) -> Iterator[str]:
    """Where a writable place lies on its device, and where what the host has mounted below it does."""
    around = [mount for mount in mounts if mount.point == path or is_below(path, mount.point)]
    if around:
        length = max(len(mount.point) for mount in around)
        holder = [mount for mount in around if len(mount.point) == length][-1]  # the last one covers the others
        below = path[len(holder.point.rstrip("/")) :]
        yield f"{holder.device} {holder.root.rstrip('/') + below or '/'} {path}"
    yield from (f"{mount.device} {mount.root} {mount.point}" for mount in mounts if is_below(mount.point, path))


def _escape(path: str) -> str:
    return re.sub(r"[ \t\n\\]", lambda found: f"\\{ord(found[0]):03o}", path)
