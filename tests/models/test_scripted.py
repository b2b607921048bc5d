"""The scripted model: which response a request gets, what events it is, and that the network makes no difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from engine.errors import ModelError, ScriptError
from engine.models import responses as r
from engine.models.client import ResponsesClient
from engine.models.failures import Disconnected, IdleTimeout
from engine.models.script_files import load_script
from engine.models.script_player import ScriptExhausted, ScriptMismatch
from engine.models.script_requests import ScriptedRequest
from engine.models.scripted import ScriptedModel
from engine.models.scripts import (
    CallFunction,
    CallTool,
    Expect,
    Garbage,
    Incomplete,
    Say,
    ScriptedResponse,
    When,
    call,
    custom,
    cut,
    delay,
    event,
    failed,
    http_error,
    patch,
    reply,
    response,
    say,
    script,
    shell,
    think,
    usage,
    wait,
)
from engine.models.serving import serve_script
from engine.protocol.items import (
    CustomToolCall,
    FunctionCall,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    SummaryText,
)
from engine.protocol.settings import TokenUsage
from tests.models.exchanges import (
    NO_PAUSE,
    assistant,
    collect,
    function_call,
    output,
    provider,
    request,
    served,
    user,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "app_server"


def texts(events: list[r.ResponseEvent]) -> str:
    return "".join(event.delta for event in events if isinstance(event, r.TextDelta))


def items(events: list[r.ResponseEvent]) -> list[Any]:
    return [event.item for event in events if isinstance(event, r.ItemDone)]


# --- events ---------------------------------------------------------------------------------------


async def test_all_kinds_of_items() -> None:
    model = ScriptedModel(
        [
            response(
                think("One.", "Two.", raw="raw", encrypted="e"),
                say("Looking around", chunk=7),
                call("exec_command", cmd="ls", yield_time_ms=5),
                custom("apply_patch", "*** Begin"),
                CallTool("apply_patch", "*** Begin", "mine", chunk=5),
                CallFunction("search", "no json", "theirs", "mcp"),
                Say("Done."),
                usage(100, 20, cached=10, reasoning=5),
                end_turn=True,
            )
        ],
        ids="x",
    )
    events = await collect(model)
    assert items(events) == [
        Reasoning((SummaryText("One."), SummaryText("Two.")), (ReasoningText("raw"),), "e", id="rs_x1_0"),
        Message("assistant", (OutputText("Looking around"),), phase="commentary", id="msg_x1_1"),
        FunctionCall(
            name="exec_command", arguments='{"cmd":"ls","yield_time_ms":5}', call_id="call_x1_2", id="fc_x1_2"
        ),
        CustomToolCall(call_id="call_x1_3", name="apply_patch", input="*** Begin", id="ctc_x1_3"),
        CustomToolCall(call_id="mine", name="apply_patch", input="*** Begin", id="ctc_x1_4"),
        FunctionCall(name="search", namespace="mcp", arguments="no json", call_id="theirs", id="fc_x1_5"),
        Message("assistant", (OutputText("Done."),), phase="final_answer", id="msg_x1_6"),
    ]
    assert [event.delta for event in events if isinstance(event, r.TextDelta)] == ["Looking", " around", "Done."]
    assert [event for event in events if isinstance(event, r.ReasoningTextDelta)] == [
        r.ReasoningTextDelta("rs_x1_0", "raw", 0)
    ]
    assert [event.delta for event in events if isinstance(event, r.CustomInputDelta)] == ["*** B", "egin"]
    assert events[-1] == r.Completed("resp_x1", TokenUsage(100, 10, 20, 5, 120), end_turn=True)


@pytest.mark.parametrize(
    ("offered", "name", "arguments"),
    [
        (("exec_command", "shell_command"), "exec_command", '{"cmd":"echo hi"}'),
        (("shell_command",), "shell_command", '{"command":"echo hi"}'),
        ((), "exec_command", '{"cmd":"echo hi"}'),
    ],
)
async def test_shell_uses_the_offered_tool(offered: tuple[str, ...], name: str, arguments: str) -> None:
    (item,) = items(await collect(ScriptedModel([shell("echo hi")]), request(tools=offered)))
    assert (item.name, item.arguments) == (name, arguments)


async def test_patch_uses_the_freeform_tool_else_the_shell() -> None:
    model = ScriptedModel([patch("*** Begin Patch\n*** End Patch")] * 2)
    (freeform,) = items(await collect(model, request(tools=("apply_patch", "exec_command"))))
    assert (freeform.name, freeform.input) == ("apply_patch", "*** Begin Patch\n*** End Patch")
    (through_shell,) = items(await collect(model, request(tools=("exec_command",))))
    assert "apply_patch <<'EOF'\\n*** Begin Patch\\n*** End Patch\\nEOF\\n" in through_shell.arguments


async def test_ids_are_never_used_twice() -> None:
    def ids(events: list[r.ResponseEvent]) -> set[str]:
        return {item.call_id for item in items(events)}

    first, second = (ScriptedModel([response(shell("a"), shell("b"), repeat=None)]) for _ in range(2))
    assert len(ids(await collect(first)) | ids(await collect(first)) | ids(await collect(second))) == 6


async def test_usage_of_the_script_is_the_default() -> None:
    model = ScriptedModel(script("a", response(say("b"), usage(1, 1)), usage=usage(7)))
    completed = [(await collect(model))[-1] for _ in range(2)]
    assert [event.usage.input_tokens for event in completed if isinstance(event, r.Completed) and event.usage] == [7, 1]
    assert await collect(ScriptedModel(["a"], ids="i")) == await collect(ScriptedModel(["a"], ids="i"))


# --- which response -------------------------------------------------------------------------------


async def test_responses_go_by_order_until_the_script_ends() -> None:
    model = ScriptedModel(["one", reply("two", repeat=2)])
    assert [texts(await collect(model)) for _ in range(3)] == ["one", "two", "two"]
    said = r"script: no answer left for request 4 \(user turn 1, step 1\); the script has 2 responses"
    with pytest.raises(ScriptExhausted, match=said) as error:
        await collect(model)
    assert isinstance(error.value, ScriptError)
    assert isinstance(error.value, ModelError)
    assert not error.value.retryable


async def test_each_thread_walks_by_itself() -> None:
    model = ScriptedModel(["one", "two"])
    assert texts(await collect(model, request(thread="a"))) == "one"
    assert texts(await collect(model, request(thread="b"))) == "one"
    assert texts(await collect(model, request(thread="a"))) == "two"
    together = ScriptedModel(script("one", "two", scope="model"))
    assert [texts(await collect(together, request(thread=name))) for name in "ab"] == ["one", "two"]


async def test_fifty_threads_on_one_script() -> None:
    model = ScriptedModel([shell("ls"), "done"])
    results: list[str] = []

    async def session(name: str) -> None:
        (item,) = items(await collect(model, request(user(name), thread=name)))
        history = (user(name), function_call(item.call_id), output("x", item.call_id))
        results.append(texts(await collect(model, request(*history, thread=name))))

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(session, str(number))
    assert results == ["done"] * 50


TWO_PROCESSES = """
[[turns]]
[[turns.responses]]
shell = "python -m unittest"
[[turns.responses]]
expect = { tool_output = "FAILED" }
text = "It fails."

[[turns]]
expect = { history = ["It fails.", "run it"] }
template = true
text = "Turn ${turn}: you first said '${user_texts[0]}'."
"""


async def test_one_script_serves_two_processes_of_one_thread() -> None:
    first = ScriptedModel.from_text(TWO_PROCESSES)
    await collect(first, request(user("run it")))
    told = (user("run it"), function_call(), output("FAILED (failures=1)"))
    assert texts(await collect(first, request(*told))) == "It fails."

    second = ScriptedModel.from_text(TWO_PROCESSES)
    resumed = request(*told, assistant("It fails."), user("and now?"))
    assert texts(await collect(second, resumed)) == "Turn 2: you first said 'run it'."
    with pytest.raises(ScriptMismatch, match=r"expected a history with 'It fails\.' in request 1, got 'x, y'"):
        await collect(ScriptedModel.from_text(TWO_PROCESSES), request(user("x"), user("y")))


@pytest.mark.parametrize(
    "when",
    [
        When(user_turn=2),
        When(step=2),
        When(user_text="second"),
        When(tool_output="fine"),
        When(model="gpt-5.5", user_turn=2),
    ],
)
async def test_conditions_choose(when: When) -> None:
    model = ScriptedModel([response(say("chosen"), when=when), "otherwise"])
    assert texts(await collect(model, request(user("first"), model="m"))) == "otherwise"
    asked = request(user("first"), user("second"), function_call(), output("all fine"))
    assert texts(await collect(model, asked)) == "chosen"


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        (Expect(user_text="x"), "expected a user message with 'x' in request 1, got 'first'"),
        (Expect(tool_output="x"), "expected a tool output with 'x' in request 1, got 'out'"),
        (Expect(history=("first", "x")), "expected a history with 'x'"),
        (Expect(absent=("out",)), "expected a history without 'out'"),
        (Expect(tools=("update_plan",)), "expected the tool 'update_plan' in request 1, got 'exec_command'"),
        (Expect(model="x"), "expected the model 'x' in request 1, got 'gpt-5.5'"),
    ],
)
async def test_what_is_expected_must_hold(expect: Expect, said: str) -> None:
    asked = request(user("first"), function_call(), output("out"))
    with pytest.raises(ScriptMismatch) as caught:
        await collect(ScriptedModel([response(say("a"), expect=expect)]), asked)
    assert f"script: response 1 {said}" in str(caught.value)
    good = Expect("fir", "ou", ("first", "out"), ("other",), ("exec_command",), "gpt-5.5")
    assert texts(await collect(ScriptedModel([response(say("a"), expect=good)]), asked)) == "a"


async def test_templates_reach_arguments() -> None:
    model = ScriptedModel(
        [response(call("exec_command", cmd="echo '${last_user_text}' $HOME", list=["${turn}", 1]), template=True)]
    )
    (item,) = items(await collect(model, request(user('say "hi"'))))
    assert item.arguments == '{"cmd":"echo \'say \\"hi\\"\' $HOME","list":["1",1]}'


async def test_a_function_may_answer() -> None:
    def echo(asked: ScriptedRequest) -> ScriptedResponse | str:
        return f"You said {asked.user_texts[-1]}" if asked.user_turn == 1 else reply("Again?")

    model = ScriptedModel([echo])
    assert texts(await collect(model, request(user("a")))) == "You said a"
    assert texts(await collect(model, request(user("a"), user("b")))) == "Again?"


async def test_requests_are_kept_within_bounds() -> None:
    model = ScriptedModel([reply("a", repeat=None)], record=2)
    for name in "abc":
        await collect(model, request(user(name)))
    assert [asked.user_texts for asked in model.requests] == [("b",), ("c",)]
    assert [asked.number for asked in model.requests] == [2, 3]
    unrecorded = ScriptedModel(["a"], record=0)
    await collect(unrecorded)
    assert list(unrecorded.requests) == []


# --- time -----------------------------------------------------------------------------------------


async def test_delays_and_intervals_take_their_time(autojump_clock: trio.testing.MockClock) -> None:
    model = ScriptedModel([response(delay(5), say("abcd", chunk=1, interval=2), delay(3))])
    await collect(model)
    assert trio.current_time() == pytest.approx(5 + 3 * 2 + 3)


async def test_a_delay_beyond_the_idle_timeout(autojump_clock: trio.testing.MockClock) -> None:
    model = ScriptedModel([response(say("a"), delay(301)), response(delay(299), say("b"))])
    with pytest.raises(IdleTimeout):
        await collect(model)
    assert texts(await collect(model)) == "b"


async def test_a_waiting_response_is_released() -> None:
    model = ScriptedModel([response(say("a"), wait(), say("b"))])
    found: list[str] = []

    async def run() -> None:
        found.append(texts(await collect(model)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await model.until_waiting()
        assert (model.waiting, found) == (1, [])
        model.release()
    assert (model.waiting, found) == (0, ["ab"])


async def test_a_cancelled_wait_leaves_nothing() -> None:
    model = ScriptedModel([response(wait())])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, model)
        await model.until_waiting()
        nursery.cancel_scope.cancel()
    assert model.waiting == 0


# --- failures, in process and over the network ----------------------------------------------------

FAILURES: list[Any] = [
    event({"type": "response.future"}),
    response(Incomplete()),
    response(say("a"), cut("end")),
    response(say("a"), cut("drop")),
    response(cut("drop")),
    response(say("a"), failed("context_length_exceeded", "long")),
    response(failed("rate_limit_exceeded", "try again in 50ms")),
    http_error(500),
    http_error(400, "bad"),
    http_error(401, "who"),
    http_error(429, "slow", headers={"retry-after": "2"}),
    http_error(429, kind="usage_limit_reached", plan_type="plus", resets_at=1893456000),
    http_error(503, code="slow_down"),
    response(Garbage("data: {half a"), say("swallowed")),
    response(Garbage("data: {half\n\n"), say("not swallowed")),
    response(Garbage("<html>nonsense</html>\n\n\x00"), cut("end")),
    response(say("b", chunk=1), wait(), headers={"x-codex-turn-state": "s", "openai-model": "m"}),
    response(say("a"), expect=Expect(user_text="something else")),
]


async def outcome(model: Any) -> tuple[Any, ...]:
    """Everything a session could notice of one request, without the URL."""
    seen: list[r.ResponseEvent] = []
    headers: dict[str, str] = {}
    try:
        async with model.stream(request()) as stream:
            wanted = ("x-codex-turn-state", "openai-model", "content-type")
            headers = {name: text for name, text in stream.headers.items() if name in wanted}
            async for event in stream:
                seen.append(event)
    except ModelError as exc:
        text = exc.message.partition(", url: ")[0]
        return headers, seen, text, exc.info, exc.retryable, exc.delay, exc.status
    return headers, seen


@pytest.mark.parametrize("which", range(len(FAILURES)))
async def test_the_network_makes_no_difference(which: int) -> None:
    def model() -> ScriptedModel:
        asked = provider(stream_idle_timeout_ms=200)
        return ScriptedModel([FAILURES[which]], ids="same", provider=asked, backoff=NO_PAUSE)

    in_process = await outcome(model())
    async with served(model(), stream_idle_timeout_ms=200) as (client, _):
        over_network = await outcome(client)
    if isinstance(FAILURES[which], ScriptedResponse) and FAILURES[which].expect.user_text:
        # The server can only say it as a bad request.
        assert over_network[2:] == (*in_process[2:6], 400)
    else:
        assert over_network == in_process


async def test_http_errors_of_a_script_are_retried_as_a_servers() -> None:
    asked = provider(request_max_retries=2)
    model = ScriptedModel([http_error(500), http_error(502), "fine"], provider=asked, backoff=NO_PAUSE)
    assert texts(await collect(model)) == "fine"
    with pytest.raises(ModelError):
        await collect(ScriptedModel([http_error(500), "never"]))


async def test_a_broken_connection_is_a_disconnect() -> None:
    with pytest.raises(Disconnected):
        await collect(ScriptedModel([cut()]))


@pytest.mark.parametrize("file", sorted(VECTORS.glob("[67]*.jsonl")), ids=lambda file: file.stem)
async def test_recorded_replies_play_alike_in_process_and_over_http(file: Path) -> None:
    if '"dir": "model"' not in file.read_text():
        with pytest.raises(ScriptError, match="no responses"):
            load_script(file)
        return
    recorded = load_script(file)
    asked = provider(stream_idle_timeout_ms=200)
    model = ScriptedModel(recorded, provider=asked, backoff=NO_PAUSE)
    here = [await outcome(model) for _ in recorded.responses]
    async with served(ScriptedModel(recorded), stream_idle_timeout_ms=200) as (client, _):
        assert [await outcome(client) for _ in recorded.responses] == here
    with pytest.raises(ScriptExhausted):
        await collect(model)


async def test_one_model_serves_both_ways_at_once() -> None:
    model = ScriptedModel(script("one", "two", scope="model"))
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_script, model)
        async with ResponsesClient(provider(server.url), env={}) as client:
            assert texts(await collect(client)) == "one"
            assert texts(await collect(model)) == "two"
        server.stop()
