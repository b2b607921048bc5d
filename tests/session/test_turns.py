"""Turns from outside: order of events and lines, tools, steering, interrupts, settings, context, failures."""

from __future__ import annotations

import json

import pytest
import trio

import engine
from engine.models.scripts import (
    Cut,
    Failed,
    HttpAnswer,
    Incomplete,
    call,
    reply,
    response,
    say,
    think,
    usage,
    wait,
)
from engine.protocol.events import (
    AgentMessageContentDelta,
    ErrorEvent,
    SessionConfigured,
    StreamError,
    TaskComplete,
    TaskStarted,
    TokenCount,
    TurnAborted,
    Warning,
)
from tests.session.conftest import Lab, collect, texts, types

FINAL = ["token_count", "task_complete"]


def tool_named(name: str, started: trio.Event, go_on: trio.Event, *, parallel: bool = True) -> engine.Tool:
    @engine.tool(name=name, parallel=parallel)
    async def waits() -> str:
        started.set()
        await go_on.wait()
        return name

    return waits


async def test_a_text_turn_has_the_canonical_order_of_events(lab: Lab) -> None:
    async with lab.session(response(say("Four.", phase="final_answer"), usage(10, 5))) as session:
        async with session.turn("What is two plus two?") as turn:
            events = await collect(turn)
    assert types(events) == [
        "task_started",
        *["raw_response_item"] * 2,  # developer and user context
        *["raw_response_item", "item_started", "item_completed", "user_message"],
        "item_started",
        "agent_message_content_delta",
        *["item_completed", "agent_message", "raw_response_item"],
        *FINAL,
    ]
    complete = events[-1]
    assert isinstance(complete, TaskComplete)
    assert complete.last_agent_message == "Four."
    assert complete.turn_id == turn.id


async def test_the_rollout_has_the_canonical_order_of_lines(lab: Lab) -> None:
    async with lab.session(reply("one"), reply("two")) as session:
        assert lab.rollouts() == []
        await session.run("first")
        await session.run("second")
    assert lab.kinds() == [
        *["session_meta", "task_started", "message:developer", "message:user", "turn_context"],
        *["message:user", "user_message", "agent_message", "message:assistant", "token_count", "task_complete"],
        *["task_started", "turn_context"],
        *["message:user", "user_message", "agent_message", "message:assistant", "token_count", "task_complete"],
    ]


async def test_a_thread_without_a_turn_leaves_no_file(lab: Lab) -> None:
    async with lab.session() as session:
        assert session.rollout_path is not None
        assert not lab.rollouts()
    assert not lab.rollouts()


async def test_an_ephemeral_session_never_has_a_file(lab: Lab) -> None:
    async with lab.session(reply("x"), ephemeral=True) as session:
        assert session.rollout_path is None
        await session.run("hello")
    assert not lab.rollouts()


async def test_session_configured_comes_first_and_is_kept_for_the_first_subscriber(lab: Lab) -> None:
    async with lab.session(approval_policy="on-failure") as session:
        with session.events() as events:
            first, second = await anext(events), await anext(events)
    assert isinstance(first.msg, SessionConfigured)
    assert (first.id, first.msg.thread_id, first.msg.session_id) == ("", session.thread_id, session.thread_id)
    assert first.msg.rollout_path == session.rollout_path
    assert first.msg.initial_messages is None
    assert isinstance(second.msg, Warning)
    assert second.msg.message.startswith("`on-failure` approval policy is deprecated")


async def test_ids_of_threads_are_time_ordered(lab: Lab) -> None:
    async with lab.open() as opened:
        first, second = [await opened.start_session(lab.settings()) for _ in range(2)]
        assert first.thread_id < second.thread_id
        assert first.thread_id[14] == "7"


async def test_the_second_turn_sends_only_what_changed(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("b"), reply("c"), reply("d")) as session:
        await session.run("first")
        await session.run("second")
        assert texts(lab.input())[-3:] == ["first", "a", "second"]
        await session.run("third", engine.SettingsUpdate(approval_policy="never"))
        assert "`never`" in texts(lab.input())[-2]
        (lab.cwd / "sub").mkdir()
        await session.run("fourth", engine.SettingsUpdate(cwd="sub"))
        context = texts(lab.input())[-2]
        assert context.startswith("<environment_context>\n  <cwd>")
        assert f"<cwd>{lab.cwd / 'sub'}</cwd>\n  <shell>" in context


async def test_a_model_switch_is_told_first(lab: Lab) -> None:
    async with lab.session(reply("a"), reply("b"), model="gpt-5.4") as session:
        await session.run("first")
        await session.run("second", engine.SettingsUpdate(model="gpt-5.2"))
        assert texts(lab.input())[-2].startswith("<model_switch>")


async def test_tool_outputs_come_back_in_call_order(lab: Lab) -> None:
    started = [trio.Event(), trio.Event()]
    go_on = [trio.Event(), trio.Event()]
    tools = tuple(tool_named(f"t{i}", started[i], go_on[i]) for i in range(2))
    answers = (response(call("t0"), call("t1"), wait()), reply("done"))
    async with lab.session(*answers, tools=tools) as session:
        turn = await session.start_turn("go")
        await lab.model.until_waiting()  # both calls are out, the response has not ended
        await started[0].wait()
        await started[1].wait()
        go_on[1].set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on[0].set()
        lab.model.release()
        await turn.result()
    outputs = [item["output"] for item in lab.input() if item["type"] == "function_call_output"]
    assert outputs == ["t0", "t1"]


async def test_an_exclusive_tool_waits_for_the_others(lab: Lab) -> None:
    started = [trio.Event(), trio.Event()]
    go_on = [trio.Event(), trio.Event()]
    tools = (tool_named("shared", started[0], go_on[0]), tool_named("alone", started[1], go_on[1], parallel=False))
    async with lab.session(response(call("shared"), call("alone")), reply("done"), tools=tools) as session:
        turn = await session.start_turn("go")
        await started[0].wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not started[1].is_set()
        go_on[0].set()
        await started[1].wait()
        go_on[1].set()
        await turn.result()


async def test_an_unknown_tool_is_an_output_and_the_turn_goes_on(lab: Lab) -> None:
    async with lab.session(response(call("foo")), reply("done")) as session:
        assert (await session.run("go")).final_message == "done"
    assert lab.input()[-1]["output"] == "unsupported call: foo"


async def test_a_call_with_the_wrong_payload_is_fatal_for_the_turn(lab: Lab) -> None:
    answers = (response(call("apply_patch", input="x")),)
    async with lab.session(*answers, model="gpt-5.4") as session:
        with pytest.raises(engine.TurnFailed, match=r"Fatal error: tool apply_patch invoked with incompatible payload"):
            await session.run("go")
        assert lab.kinds()[-1] == "task_complete"


async def test_arguments_that_are_no_json_go_back_to_the_model(lab: Lab) -> None:
    from engine.models.scripts import CallFunction

    async with lab.session(response(CallFunction("update_plan", "{nope")), reply("done")) as session:
        await session.run("go")
    output = lab.input()[-1]["output"]
    assert isinstance(output, str)
    assert output.startswith("failed to parse function arguments: ")


async def test_usage_adds_up_and_is_told_after_the_tools(lab: Lab) -> None:
    @engine.tool()
    async def quick() -> str:
        return "ok"

    answers = (response(call("quick"), usage(100, 20, cached=10, reasoning=5)), response(say("x"), usage(200, 1)))
    async with lab.session(*answers, tools=(quick,)) as session:
        async with session.turn("go") as turn:
            events = await collect(turn)
            result = await turn.result()
    counts = [event for event in events if isinstance(event, TokenCount)]
    assert [c.info.total_token_usage.total_tokens for c in counts if c.info] == [120, 321]
    assert result.usage.input_tokens == result.total_usage.input_tokens == 300
    assert types(events).index("dynamic_tool_call_response") < types(events).index("token_count")


async def test_input_while_a_turn_runs_steers_it(lab: Lab) -> None:
    async with lab.session(response(say("thinking"), wait()), reply("done")) as session:
        turn = await session.start_turn("first")
        await lab.model.until_waiting()
        steered = await session.start_turn("also this")
        assert steered.id == turn.id
        assert await session.steer("and that", expected=turn.id) == turn.id
        lab.model.release()
        result = await turn.result()
        assert result.final_message == "done"
    assert texts(lab.input())[-3:] == ["thinking", "also this", "and that"]
    assert lab.kinds().count("task_started") == 1


async def test_steering_says_what_is_wrong(lab: Lab) -> None:
    async with lab.session(response(wait())) as session:
        with pytest.raises(engine.InvalidRequest, match="input must not be empty"):
            await session.steer("")
        with pytest.raises(engine.InvalidRequest, match="no active turn to steer"):
            await session.steer("x")
        turn = await session.start_turn("go")
        wrong = engine.TurnId("other")
        with pytest.raises(engine.InvalidRequest, match=f"expected active turn id `other` but found `{turn.id}`"):
            await session.steer("x", expected=wrong)
        await turn.interrupt()


async def test_empty_input_starts_nothing(lab: Lab) -> None:
    async with lab.session() as session:
        with pytest.raises(engine.InvalidRequest, match="input must not be empty"):
            await session.run("")
    assert not lab.rollouts()


async def test_an_interrupt_leaves_its_marker_before_it_is_told(lab: Lab) -> None:
    async with lab.session(response(say("Partial"), wait()), reply("after")) as session:
        async with session.turn("go") as turn:
            await lab.model.until_waiting()
            await session.interrupt()
            marker = lab.lines()[-2]["payload"]
            assert "<turn_aborted>" in json.dumps(marker)
            events = await collect(turn)
            with pytest.raises(engine.TurnInterrupted, match="interrupted"):
                await turn.result()
        assert isinstance(events[-1], TurnAborted)
        assert "task_complete" not in types(events)
        await session.run("next")
        assert any(text.startswith("<turn_aborted>") for text in texts(lab.input()))
    assert lab.kinds().count("turn_aborted") == 1


async def test_steered_input_of_an_interrupted_turn_never_reaches_the_model(lab: Lab) -> None:
    async with lab.session(response(wait()), reply("after")) as session:
        turn = await session.start_turn("go")
        await lab.model.until_waiting()
        await turn.steer("forget me")
        await turn.interrupt()
        await session.run("next")
    assert "forget me" not in texts(lab.input())


async def test_the_marker_can_be_switched_off(lab: Lab) -> None:
    async with lab.session(response(wait()), reply("x"), config={"agents.interrupt_message": False}) as session:
        turn = await session.start_turn("go")
        await lab.model.until_waiting()
        await turn.interrupt()
        await session.run("next")
    assert not any("<turn_aborted>" in text for text in texts(lab.input()))


async def test_a_tool_that_is_interrupted_answers_that_it_was_aborted(lab: Lab) -> None:
    started, never = trio.Event(), trio.Event()
    tools = (tool_named("slow", started, never),)
    async with lab.session(response(call("slow")), reply("after"), tools=tools) as session:
        turn = await session.start_turn("go")
        await started.wait()
        await turn.interrupt()
        await session.run("next")
    outputs = [item["output"] for item in lab.input() if item["type"] == "function_call_output"]
    assert outputs == ["aborted by user after 0.1s"]


async def test_a_tool_that_does_not_let_go_is_fenced_off(lab: Lab) -> None:
    started, let_go = trio.Event(), trio.Event()

    @engine.tool()
    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            started.set()
            await let_go.wait()
        return "too late"

    async with lab.session(response(call("stubborn")), reply("after"), tools=(stubborn,)) as session:
        turn = await session.start_turn("go")
        await started.wait()
        before = trio.current_time()
        await turn.interrupt()
        assert trio.current_time() - before < 1
        await session.run("next")
        let_go.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        outputs = [item["output"] for item in lab.input() if item["type"] == "function_call_output"]
        assert outputs == ["aborted"]
    assert "too late" not in json.dumps(lab.lines())


async def test_cancelling_run_interrupts_the_turn(lab: Lab) -> None:
    async with lab.session(response(wait()), reply("after")) as session:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, "go")
                await lab.model.until_waiting()
                scope.cancel()
        assert lab.kinds()[-1] == "turn_aborted"
        assert (await session.run("next")).final_message == "after"


async def test_leaving_a_turn_block_early_interrupts_it(lab: Lab) -> None:
    async with lab.session(response(wait())) as session:
        async with session.turn("go"):
            await lab.model.until_waiting()
        assert lab.kinds()[-1] == "turn_aborted"


async def test_closing_during_a_turn_ends_with_marker_and_abort(lab: Lab) -> None:
    async with lab.session(response(wait())) as session:
        turn = await session.start_turn("go")
        await lab.model.until_waiting()
        with session.events() as events:
            await session.aclose()
            seen = [event.msg.type async for event in events]
        with pytest.raises(engine.TurnInterrupted):
            await turn.result()
        with pytest.raises(engine.SessionClosed):
            await session.run("too late")
    assert seen[-2:] == ["turn_aborted", "shutdown_complete"]
    assert lab.kinds()[-2:] == ["message:user", "turn_aborted"]


async def test_the_callers_context_variables_reach_its_turn(lab: Lab) -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="nobody")
    seen: list[str] = []

    @engine.tool()
    async def look() -> str:
        seen.append(variable.get())
        return "ok"

    async with lab.session(response(call("look")), reply("done"), tools=(look,)) as session:
        variable.set("the submitter")
        await session.run("go")
    assert seen == ["the submitter"]


# --- failures ----------------------------------------------------------------------------------


async def failing_turn(lab: Lab, *answers: object, **config: object) -> list[engine.EventMsg]:
    lab.model = engine.ScriptedModel([])
    async with lab.open(*answers) as opened:
        async with opened.session(lab.settings(model="gpt-5.4")) as session:
            async with session.turn("go") as turn:
                events = await collect(turn)
                with pytest.raises(engine.TurnFailed) as caught:
                    await turn.result()
    error = next(event for event in events if isinstance(event, ErrorEvent))
    assert error.message == caught.value.message
    assert isinstance(events[-1], TaskComplete)
    assert events[-1].last_agent_message is None
    return events


async def test_a_cut_stream_is_tried_again_with_what_was_done(lab: Lab) -> None:
    runs: list[int] = []

    @engine.tool()
    async def once() -> str:
        runs.append(1)
        return "ran"

    async with lab.session(response(call("once"), Cut()), reply("done"), tools=(once,)) as session:
        async with session.turn("go") as turn:
            events = await collect(turn)
    assert runs == [1]
    again = [event for event in events if isinstance(event, StreamError)]
    assert [event.message for event in again] == ["Reconnecting... 1/5"]
    assert again[0].codex_error_info == {"response_stream_disconnected": {"http_status_code": None}}
    assert [item["type"] for item in lab.input()][-2:] == ["function_call", "function_call_output"]


async def test_a_stream_that_is_always_cut_uses_up_its_budget(lab: Lab) -> None:
    from engine.models.scripted import scripted_provider

    model = engine.ScriptedModel([response(Cut(), repeat=None)], provider=scripted_provider(stream_max_retries=2))
    async with engine.open_engine(home=lab.home, model=model) as opened, opened.session(lab.settings()) as session:
        async with session.turn("go") as turn:
            events = await collect(turn)
            with pytest.raises(engine.TurnFailed, match="stream disconnected before completion: "):
                await turn.result()
    assert len(model.requests) == 3
    assert [e.message for e in events if isinstance(e, StreamError)] == ["Reconnecting... 1/2", "Reconnecting... 2/2"]
    assert types(events)[-2:] == ["error", "task_complete"]


async def test_an_incomplete_response_is_final(lab: Lab) -> None:
    events = await failing_turn(lab, response(Incomplete()))
    assert "Incomplete response returned, reason: max_output_tokens" in str(events)
    assert len(lab.model.requests) == 1


async def test_a_full_context_window_is_told_and_counted(lab: Lab) -> None:
    events = await failing_turn(lab, response(Failed("context_length_exceeded")))
    count = [event for event in events if isinstance(event, TokenCount)][-1]
    assert count.info is not None
    assert count.info.total_token_usage.total_tokens == count.info.model_context_window
    error = next(event for event in events if isinstance(event, ErrorEvent))
    assert error.codex_error_info == "context_window_exceeded"


@pytest.mark.parametrize(
    ("answer", "info"),
    [
        (HttpAnswer(400, "bad"), "other"),
        (HttpAnswer(429), {"response_too_many_failed_attempts": {"http_status_code": 429}}),
    ],
)
async def test_http_refusals_end_the_turn_after_one_request(lab: Lab, answer: HttpAnswer, info: object) -> None:
    events = await failing_turn(lab, response(answer))
    error = next(event for event in events if isinstance(event, ErrorEvent))
    assert error.codex_error_info == info
    assert len(lab.model.requests) == 1


async def test_an_exhausted_script_fails_the_turn_clearly(lab: Lab) -> None:
    async with lab.session() as session:
        with pytest.raises(engine.TurnFailed, match="script"):
            await session.run("go")
        assert lab.kinds()[-1] == "task_complete"


async def test_reasoning_is_shown_and_sent_back(lab: Lab) -> None:
    answers = (response(think("Hmm.", encrypted="b3BhcXVl"), say("ok", phase="final_answer")), reply("again"))
    async with lab.session(*answers) as session:
        async with session.turn("go") as turn:
            events = await collect(turn)
        await session.run("more")
    assert "agent_reasoning" in types(events)
    (sent,) = [item for item in lab.input() if item["type"] == "reasoning"]
    assert sent == {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Hmm."}],
        "content": None,
        "encrypted_content": "b3BhcXVl",
    }


async def test_deltas_add_up_to_the_message(lab: Lab) -> None:
    async with lab.session(response(say("Hello, world", phase="final_answer", chunk=3))) as session:
        async with session.turn("go") as turn:
            events = await collect(turn)
    assert "".join(event.delta for event in events if isinstance(event, AgentMessageContentDelta)) == "Hello, world"
    assert isinstance(next(e for e in events if isinstance(e, TaskStarted)).started_at, int)


async def test_settings_that_make_no_sense_change_nothing(lab: Lab) -> None:
    async with lab.session(reply("x")) as session:
        with session.events() as events:
            with pytest.raises(engine.InvalidRequest, match="does not exist"):
                await session.update(engine.SettingsUpdate(cwd="nowhere", model="gpt-5.4"))
            seen = [await anext(events) for _ in range(events.pending())]
        assert isinstance(seen[-1].msg, ErrorEvent)
        assert seen[-1].msg.codex_error_info == "bad_request"
        await session.run("go")
    assert lab.model.requests[-1].body["model"] != "gpt-5.4"


async def test_an_output_schema_holds_for_its_turn_alone(lab: Lab) -> None:
    schema: dict[str, object] = {"type": "object"}
    async with lab.session(reply("{}"), reply("free")) as session:
        await session.run("go", engine.SettingsUpdate(output_schema=schema))
        await session.run("more")
    first, second = (request.body for request in lab.model.requests)
    assert isinstance(first["text"], dict)
    assert isinstance(second["text"], dict)
    wanted = {"type": "json_schema", "strict": True, "schema": schema, "name": "codex_output_schema"}
    assert first["text"]["format"] == wanted
    assert "format" not in second["text"]
