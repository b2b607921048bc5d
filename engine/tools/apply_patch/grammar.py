"""What the model is told about the tool: its description and the Lark grammar that its input follows (tools.md 2.1).

The parser takes more than the grammar allows; the grammar says how a patch should look.
"""

from __future__ import annotations

__all__ = ["TOOL_DESCRIPTION", "TOOL_NAME", "patch_grammar"]

TOOL_NAME = "apply_patch"

TOOL_DESCRIPTION = (
    "Creates, changes, moves and deletes files from one patch. "
    "This is a free-form tool: send the patch itself, not JSON around it."
)

_START = "start: begin hunk+ end\n"
_START_WITH_ENVIRONMENT = 'start: begin environment? hunk+ end\nenvironment: "*** Environment ID: " TEXT LF\n'

_RULES = """\
begin: "*** Begin Patch" LF
end: "*** End Patch" LF?

hunk: add | delete | update
add: "*** Add File: " TEXT LF added*
delete: "*** Delete File: " TEXT LF
update: "*** Update File: " TEXT LF move? first_chunk chunk*

move: "*** Move to: " TEXT LF
first_chunk: marker? line+ end_of_file?
chunk: marker line+ end_of_file?
marker: ("@@" | "@@ " TEXT) LF
line: ("+" | "-" | " ") TEXT? LF
added: "+" TEXT? LF
end_of_file: "*** End of File" LF

TEXT: /[^\\n]+/
LF: "\\n"
"""


def patch_grammar(*, environments: bool = False) -> str:
    """The Lark text. With `environments` a patch may name the environment it is for, on its second line."""
    return (_START_WITH_ENVIRONMENT if environments else _START) + _RULES
