"""Transcripts show what happened once, in order; nothing in a thread can break out of the document."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.protocol.events import TaskStarted, ThreadRolledBack, TurnAborted
from engine.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Message,
    OutputText,
    Reasoning,
    SummaryText,
    user_message,
)
from engine.protocol.rollout_items import Compacted, EventLine, ResponseLine, RolloutItem
from engine.rollout.loading import load
from engine.transcripts.entries import Called, Entry, Note, Opening, Said, Thought, TurnBegan, entries
from engine.transcripts.html import html
from engine.transcripts.images import is_safe
from engine.transcripts.markdown import markdown

RECORDED = Path(__file__).parents[1] / "vectors" / "rollout" / "recorded"
PICTURE = "data:image/png;base64,iVBORw0KGgo="


def answer(text: str) -> ResponseLine:
    return ResponseLine(Message(role="assistant", content=(OutputText(text),)))


def call(call_id: str, **arguments: object) -> ResponseLine:
    return ResponseLine(FunctionCall(name="exec_command", arguments=json.dumps(arguments), call_id=call_id))


def result(call_id: str, text: str) -> ResponseLine:
    return ResponseLine(FunctionCallOutput(call_id, text))


class Document(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_recorded_thread() -> None:
    [opening, turn, model, user, called, *rest] = entries(load((RECORDED / "shell_call.jsonl").read_bytes()).items)
    assert isinstance(opening, Opening)
    assert opening.cwd == "/workspace/project"
    assert isinstance(turn, TurnBegan)
    assert isinstance(model, Note)
    assert user == Said("user", "run it")
    assert isinstance(called, Called)
    assert (called.name, called.input, called.language) == ("exec_command", "printf 'hello\\n'", "sh")
    assert "hello" in (called.output or "")
    assert [entry for entry in rest if isinstance(entry, Said)] == [
        Said("assistant", "done"),
        Said("user", "write outside"),
        Said("assistant", "blocked"),
    ]


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.jsonl")), ids=lambda path: path.stem)
def test_every_recorded_thread_can_be_written(path: Path) -> None:
    items = load(path.read_bytes()).items
    said = [entry.text for entry in entries(items) if isinstance(entry, Said)]
    page, text = "".join(html(entries(items))), "".join(markdown(entries(items)))
    shown = "".join(Document(page).texts)
    assert said
    assert all(each in shown and each in text for each in said)
    assert "<environment_context>" not in text


def test_a_result_goes_to_its_call_and_a_lost_one_holds_nothing_back() -> None:
    items: list[RolloutItem] = [call("a", cmd="one"), call("b", x=1), result("b", "B"), answer("so"), result("a", "A")]
    one, two, said = entries(items)
    assert one == Called("exec_command", "one", "sh", "A")
    assert two == Called("exec_command", '{\n  "x": 1\n}', "json", "B")
    assert said == Said("assistant", "so")
    lost, turn, late = entries([call("a", cmd="one"), EventLine(TaskStarted("t", started_at=0)), result("a", "late")])
    assert (lost, turn) == (Called("exec_command", "one", "sh"), TurnBegan(0))
    assert late == Called("result of an earlier call", "", "", "late")


def test_what_happened_to_the_conversation() -> None:
    items: list[RolloutItem] = [
        ResponseLine(user_message("go")),
        ResponseLine(Reasoning(summary=(SummaryText("hm"),))),
        EventLine(TurnAborted("t")),
        Compacted("in short"),
        EventLine(ThreadRolledBack(2)),
    ]
    assert list(entries(items)) == [
        Said("user", "go"),
        Thought("hm"),
        Note("the turn was interrupted"),
        Note("the conversation was compacted", "in short"),
        Note("the last 2 turns were taken back"),
    ]
    text = "".join(markdown(entries(items), title="A\nthread"))
    assert text.startswith("# A thread\n\n### User\n\ngo\n\n> hm\n\n*the turn was interrupted*\n\n")


def test_an_image_stands_in_a_transcript_once() -> None:
    seen: list[Entry] = [Said("user", "look", (PICTURE,)), Said("user", "again", (PICTURE, "javascript:alert(1)"))]
    page, text = "".join(html(seen)), "".join(markdown(seen))
    assert page.count(PICTURE) == text.count(PICTURE) == 1
    assert Document(page).sources == [PICTURE]
    assert text.count("![image 1][image-1]") == 2
    parts = (InputText("<image>"), InputImage(PICTURE), InputText("</image>"), InputText("what is it?"))
    [said] = entries([ResponseLine(Message(role="user", content=parts))])
    assert said == Said("user", "what is it?", (PICTURE,))


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        'https://x/"onerror=1',
        "file:///etc/passwd",
        "",
    ],
)
def test_urls_that_are_no_images(url: str) -> None:
    assert not is_safe(url)


OURS = {"html", "head", "meta", "title", "style", "body", "h1", "div", "details", "summary", "pre", "p", "dl"}
NASTY = st.text(alphabet=st.sampled_from("<>&\"'`/=\n\x00\x1b\ud800 ascriptonload![]()#"), max_size=60)


@given(NASTY, NASTY, NASTY)
def test_nothing_breaks_out_of_a_page(said: str, given_input: str, output: str) -> None:
    told: list[Entry] = [
        Said("user", said, (said,)),
        Thought(said),
        Called(given_input, given_input, "", output),
        Note(said, output),
    ]
    document = Document("".join(html(told, title=said)))
    assert set(document.tags) <= OURS


@given(NASTY)
def test_nothing_ends_a_fence(output: str) -> None:
    text = "".join(markdown([Called("tool", "", "", output), Said("assistant", "after")]))
    head, body = text.split("Result:\n\n")
    fence = body.split("\n", 1)[0]
    assert "after" in body.rsplit(f"\n{fence}\n", 1)[1]
    assert fence not in output
    assert head.startswith("<details>")
