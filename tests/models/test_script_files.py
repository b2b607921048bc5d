"""Scripts in files: TOML, JSON lines, recorded transcripts; every mistake is located."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ScriptError
from engine.models.script_files import load_script, parse_script
from engine.models.scripts import (
    CallFunction,
    CallTool,
    Cut,
    Delay,
    Expect,
    Failed,
    Garbage,
    HttpAnswer,
    Incomplete,
    Patch,
    RawEvent,
    Reason,
    Say,
    ScriptedResponse,
    Shell,
    Usage,
    Wait,
    When,
)

EVERYTHING = """
name = "all of it"
scope = "model"
usage = { input = 5, output = 1 }

[[responses]]
text = "Short."

[[responses]]
when = { user_turn = 2, step = 1, user_text = "go", tool_output = "ok", model = "m" }
expect = { user_text = "a", tool_output = "b", history = ["c", "d"], absent = "e", tools = ["f"], model = "m" }
repeat = 3
end_turn = false
headers = { openai-model = "served", x-n = 5 }
usage = { input = 10, cached = 2, output = 3, reasoning = 1, total = 20 }
steps = [
  { reasoning = ["One.", "Two."], raw = "raw", encrypted = "b64" },
  { commentary = "Looking.", chunk = 3, interval = 0.5 },
  { call = "exec_command", arguments = { cmd = "ls" }, call_id = "c1", namespace = "ns" },
  { call = "broken", arguments = "{not json" },
  { custom = "apply_patch", input = "*** Begin", chunk = 4 },
  { shell = "true", call_id = "c2" },
  { patch = "*** Begin Patch" },
  { usage = { input = 1 } },
  { delay = 1 },
  { wait = true },
  { garbage = "data: {\\n\\n" },
  { event = { type = "response.future" } },
  { text = "Done.", phase = "odd" },
]

[[responses]]
repeat = true
steps = [{ failed = "server_error", message = "m" }]

[[responses]]
failed = { code = "c", message = "m" }

[[responses]]
incomplete = "max_output_tokens"

[[responses]]
cut = true

[[responses]]
cut = "end"

[[responses]]
error = { status = 429, type = "usage_limit_reached", plan_type = "plus", resets_at = 5, headers = { retry-after = 1 } }

[[responses]]
error = { status = 502, body = "plain" }
"""


def test_everything_a_toml_script_can_say() -> None:
    found = parse_script(EVERYTHING)
    assert (found.name, found.scope, found.usage) == ("all of it", "model", Usage(input=5, output=1))
    assert found.responses == (
        ScriptedResponse((Say("Short."),)),
        ScriptedResponse(
            (
                Usage(10, 2, 3, 1, 20),
                Reason(("One.", "Two."), "raw", "b64"),
                Say("Looking.", "commentary", 3, 0.5),
                CallFunction("exec_command", {"cmd": "ls"}, "c1", "ns"),
                CallFunction("broken", "{not json"),
                CallTool("apply_patch", "*** Begin", None, 4),
                Shell("true", "c2"),
                Patch("*** Begin Patch"),
                Usage(input=1),
                Delay(1.0),
                Wait(),
                Garbage("data: {\n\n"),
                RawEvent({"type": "response.future"}),
                Say("Done.", "odd"),
            ),
            when=When(2, 1, "go", "ok", "m"),
            expect=Expect("a", "b", ("c", "d"), ("e",), ("f",), "m"),
            repeat=3,
            headers={"openai-model": "served", "x-n": "5"},
            end_turn=False,
        ),
        ScriptedResponse((Failed("server_error", "m"),), repeat=None),
        ScriptedResponse((Failed("c", "m"),)),
        ScriptedResponse((Incomplete("max_output_tokens"),)),
        ScriptedResponse((Cut("drop"),)),
        ScriptedResponse((Cut("end"),)),
        ScriptedResponse(
            (
                HttpAnswer(
                    429,
                    {
                        "error": {
                            "message": "scripted error",
                            "type": "usage_limit_reached",
                            "plan_type": "plus",
                            "resets_at": 5,
                        }
                    },
                    {"retry-after": "1"},
                ),
            )
        ),
        ScriptedResponse((HttpAnswer(502, "plain"),)),
    )


def test_turns_number_themselves() -> None:
    found = parse_script(
        """
        [[turns]]
        text = "one"

        [[turns]]
        [[turns.responses]]
        shell = "ls"
        [[turns.responses]]
        when = { step = 2 }
        text = "two"
        """
    )
    assert [response.when for response in found.responses if isinstance(response, ScriptedResponse)] == [
        When(user_turn=1),
        When(user_turn=2),
        When(user_turn=2, step=2),
    ]


def test_json_lines_with_options() -> None:
    found = parse_script('{"script": {"name": "n", "template": true}}\n\n{"text": "turn ${turn}"}\n', "jsonl")
    assert found.name == "n"
    assert found.responses == (ScriptedResponse((Say("turn ${turn}"),), template=True),)


def test_recorded_transcripts_are_scripts() -> None:
    lines = [
        {"dir": "note", "note": "x"},
        {"dir": "model", "n": 1, "reply": {"events": [{"type": "response.created"}, "WAIT"], "cut": True}},
        {"dir": "stdout", "msg": {}},
        {"dir": "model", "n": 2, "reply": {"status": 500, "json": {"error": {}}, "headers": {"a": "b"}}},
        {"dir": "model", "n": 3, "reply": {"events": []}},
    ]
    found = parse_script("\n".join(map(json.dumps, lines)), "jsonl")
    assert found.responses == (
        ScriptedResponse((RawEvent({"type": "response.created"}), Wait(), Cut("drop")), raw=True),
        ScriptedResponse((HttpAnswer(500, {"error": {}}, {"a": "b"}),), raw=True),
        ScriptedResponse((), raw=True),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the script has no responses"),
        ("x = \n", "line 1, column 5"),
        ("nonsense = 1", "unknown key `nonsense`"),
        ("responses = 5", "`responses` must be an array"),
        ("responses = [5]", "responses[0]: must be a table"),
        ('scope = "x"\nresponses = [{text = "a"}]', '`scope` must be "thread" or "model"'),
        ("[[responses]]\ntext = 5", "responses[0]: `text` must be a string"),
        ("[[responses]]\n", "responses[0]: a response needs a step"),
        ('[[responses]]\ntxt = "a"', "responses[0]: unknown key `txt`"),
        ('[[responses]]\ntext = "a"\nshell = "b"', "one step can't be both `text` and `shell`"),
        ('[[responses]]\nsteps = [{ text = "a", chunk = 0 }]', "responses[0].steps[0]: `chunk` must be at least 1"),
        ('[[responses]]\nsteps = [{ text = "a", inputs = 1 }]', "responses[0].steps[0]: unknown key `inputs`"),
        ("[[responses]]\nsteps = [{}]", "responses[0].steps[0]: a step needs one of: text, commentary"),
        ('[[responses]]\ntext = "a"\nwhen = { turn = 1 }', "responses[0].when: unknown key `turn`"),
        ('[[responses]]\ntext = "a"\nexpect = { history = 5 }', "responses[0].expect: `history` must be a string or"),
        ('[[responses]]\ntext = "a"\nrepeat = 0', "`repeat` must be true or a number of at least 1"),
        ('[[responses]]\ntext = "a"\nusage = { inputs = 1 }', "responses[0].usage: unknown key `inputs`"),
        ('[[responses]]\ntext = "a"\nusage = { input = true }', "`input` must be an integer"),
        ('[[responses]]\ntext = "a"\nheaders = { a = [] }', "`headers` must be a table of strings"),
        ("[[responses]]\ndelay = -1", "`delay` must be a number of seconds"),
        ("[[responses]]\ndelay = inf", "`delay` must be a number of seconds"),
        ("[[responses]]\nwait = false", "`wait` can only be true"),
        ('[[responses]]\ncut = "x"', '`cut` must be true, "drop" or "end"'),
        ("[[responses]]\nfailed = 1", "`failed` must be a code, or a table"),
        ('[[responses]]\ncall = "n"\narguments = 5', "`arguments` must be a table, or text"),
        ('[[responses]]\ncustom = "n"', "`input` is missing"),
        ("[[responses]]\nerror = { status = 99 }", "responses[0].error: `status` must be an HTTP status"),
        ('[[responses]]\nsteps = [{ cut = true }, { text = "a" }]', "responses[0]: nothing can follow the step `cut`"),
        ('[[responses]]\nsteps = [{ text = "a" }, { error = { status = 500 } }]', "an HTTP answer is the only step"),
        ('[[turns]]\ntext = "a"\nwhen = { user_turn = 2 }', "turns[0]: `when.user_turn` follows from the place"),
        ('[[turns]]\nx = 1\nresponses = [{text = "a"}]', "turns[0]: unknown key `x`"),
        ('template = true\n[[responses]]\ntext = "${nope}"', "responses[0]: unknown placeholder ${nope}"),
        ('[[responses]]\ntemplate = true\ncall = "c"\narguments = { a = ["${turn[0]}"] }', "placeholder ${turn[0]}"),
    ],
)
def test_mistakes_in_toml_are_located(text: str, said: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse_script(text, source="demo.toml")
    assert str(caught.value).startswith("demo.toml: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "demo.jsonl:1: not JSON"),
        ('{"text": "a"}\n[]', "demo.jsonl:2: a line must be a JSON object"),
        ('\n{"text": 5}', "demo.jsonl:2: `text` must be a string"),
        ('{"script": {"x": 1}}', "demo.jsonl:1: script: unknown key `x`"),
        ('{"reply": {"events": [5]}}', 'demo.jsonl:1: reply: events[0] must be an event or "WAIT"'),
        ('{"reply": {}}', "demo.jsonl:1: reply: `events` is missing"),
        ('{"reply": {"events": [], "x": 1}}', "demo.jsonl:1: reply: unknown key `x`"),
    ],
)
def test_mistakes_in_json_lines_are_located(text: str, said: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse_script(text, "jsonl", source="demo.jsonl")
    assert said in str(caught.value)


def test_the_suffix_tells_the_form(tmp_path: Path) -> None:
    toml, lines = tmp_path / "a.toml", tmp_path / "a.jsonl"
    toml.write_text('[[responses]]\ntext = "é"')
    lines.write_text('{"text": "é"}')
    assert load_script(toml) == load_script(lines)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"none\.toml: the script can't be read: No such file"):
        load_script(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(ScriptError, match="not UTF-8"):
        load_script(tmp_path / "latin.toml")


KEYS = """
    text call arguments steps when expect repeat usage error failed cut reply events status json headers delay
    wait event user_turn history template dir
"""
keys = st.sampled_from(KEYS.split())
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 600)
    | st.text(max_size=8)
    | st.sampled_from(["model", "${turn}", "WAIT"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=15,
)


@given(st.lists(st.dictionaries(keys, values, max_size=4), max_size=3))
def test_any_json_is_a_script_or_a_script_error(lines: list[dict[str, Any]]) -> None:
    try:
        parse_script("\n".join(map(json.dumps, lines)), "jsonl")
    except ScriptError:
        pass
