"""The grammar of bash: a script as a syntax tree. Loaded on first use; knows nothing of what a script means."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Language, Node

__all__ = ["node_text", "parse_script"]

# The scanner of the grammar looks characters up in C's tables of 256: by any other it reads somewhere else, and far
# enough behind the tables the process dies. To every shell they are letters, as one that is in the tables.
_BEYOND = re.compile("[\u0100-\U0010ffff]")
_LETTERS = {2: "é", 3: "éx", 4: "éé"}  # by their bytes, so that every place stays where it is


def parse_script(script: str) -> Node | None:
    """The root of the syntax tree; None for text with lone surrogates, which is no text to a shell either.

    Never raises: a script with errors has a tree with `has_error`. Takes time in proportion to the script as long as it
    parses; some broken scripts take time in proportion to the square, so who reads what others wrote sets a bound.
    """
    from tree_sitter import Parser

    try:
        source = script.encode()
    except UnicodeEncodeError:
        return None
    if _BEYOND.search(script) is None:
        return Parser(_language()).parse(source).root_node
    shown = bytearray(_BEYOND.sub(_letters, script).encode())
    tree = Parser(_language()).parse(shown)
    shown[:] = source  # the tree takes the text of its nodes from there
    return tree.root_node


def _letters(character: re.Match[str]) -> str:
    return _LETTERS[len(character[0].encode())]


@cache
def _language() -> Language:
    from tree_sitter import Language
    from tree_sitter_bash import language

    return Language(language())


def node_text(node: Node) -> str:
    """The piece of the script a node stands for, verbatim."""
    return (node.text or b"").decode()
