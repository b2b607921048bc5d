"""The model-facing text of an outcome, and what the model is told of the format (tools.md 1.8, 2.1)."""

from __future__ import annotations

import json

import pytest

from engine.tools.apply_patch import model_result, patch_grammar


@pytest.mark.parametrize(
    ("duration", "shown"), [(0.0, "0.0"), (0.04, "0.0"), (0.05, "0.1"), (0.25, "0.3"), (1.0, "1.0"), (12.34, "12.3")]
)
def test_duration_is_shown_to_a_tenth(duration: float, shown: str) -> None:
    assert model_result("ok\n", 0, duration) == (
        f'{{"output":"ok\\n","metadata":{{"exit_code":0,"duration_seconds":{shown}}}}}'
    )


def test_output_is_text_as_it_is() -> None:
    text = model_result('é “q” "\\\n', 1, 0.1)
    assert "é “q”" in text
    assert json.loads(text)["output"] == 'é “q” "\\\n'


def test_every_marker_is_in_the_grammar() -> None:
    grammar = patch_grammar()
    for marker in (
        "Begin Patch",
        "End Patch",
        "Add File: ",
        "Delete File: ",
        "Update File: ",
        "Move to: ",
        "End of File",
    ):
        assert f'"*** {marker}"' in grammar
    assert "Environment ID" not in grammar
    assert '"*** Environment ID: "' in patch_grammar(environments=True)
