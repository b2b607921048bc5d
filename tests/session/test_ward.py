"""Failures of a ward's children are recorded, never raised through its nursery."""

from __future__ import annotations

import contextvars

import pytest
import trio

from engine.session.ward import Ward, collapse


async def fail(exc: BaseException) -> None:
    raise exc


async def test_the_first_failure_in_time_comes_first_and_cancels_the_siblings() -> None:
    async def late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup failed too")

    async with trio.open_nursery() as nursery:
        ward = Ward(nursery)
        ward.start_soon("late", late)
        await trio.testing.wait_all_tasks_blocked()
        ward.start_soon("early", fail, KeyError("first"))
    assert [name for name, _ in ward.failures] == ["early", "late"]
    assert isinstance(ward.failures[0][1], KeyError)


async def test_an_exception_group_of_a_foreign_nursery_is_collapsed() -> None:
    async def foreign() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(fail, OSError("inner"))

    async with trio.open_nursery() as nursery:
        ward = Ward(nursery)
        ward.start_soon("foreign", foreign)
    assert [(name, type(exc)) for name, exc in ward.failures] == [("foreign", OSError)]


async def test_keyboard_interrupt_is_not_kept() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            Ward(nursery).start_soon("stop", fail, KeyboardInterrupt())
    assert isinstance(collapse(caught.value), KeyboardInterrupt)


async def test_children_run_in_the_context_variables_they_are_given() -> None:
    variable = contextvars.ContextVar[str]("variable", default="outside")
    context = contextvars.copy_context()
    context.run(variable.set, "submitter")
    seen: list[str] = []

    async def look() -> None:
        seen.append(variable.get())

    async with trio.open_nursery() as nursery:
        ward = Ward(nursery)
        ward.start_soon("in context", look, context=context)
        ward.start_soon("without", look)
    assert sorted(seen) == ["outside", "submitter"]


def test_collapse_prefers_what_the_receiver_can_act_on() -> None:
    interrupt, error = KeyboardInterrupt(), ValueError()
    assert collapse(BaseExceptionGroup("", [error, interrupt])) is interrupt
    assert collapse(BaseExceptionGroup("", [BaseExceptionGroup("", [error])])) is error
