"""Code of the host: what may come out of it."""

from __future__ import annotations

import pytest
import trio

from engine.tools.host_code import call_host


async def add(one: int, *, other: int) -> int:
    await trio.lowlevel.checkpoint()
    return one + other


async def test_results_pass() -> None:
    assert await call_host(add, 1, other=2) == 3


async def test_errors_and_groups_of_errors_pass_as_they_are() -> None:
    group = ExceptionGroup("both", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])])
    for error in (ValueError("a"), group, KeyboardInterrupt(), BaseExceptionGroup("odd", [GeneratorExit()])):

        async def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as found:
            await call_host(fail)
        assert found.value is error


@pytest.mark.parametrize("wanted", [KeyboardInterrupt, SystemExit])
async def test_leaving_the_program_counts_for_more_than_an_error(
    wanted: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise BaseExceptionGroup("mixed", [ValueError("aside"), BaseExceptionGroup("inner", [wanted()])])

    with pytest.raises(wanted):
        await call_host(fail)
    assert "aside" in caplog.text


async def test_a_cancellation_counts_for_more_than_the_errors_of_its_cleanup(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("aside")

    async def with_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stubborn)
            nursery.start_soon(trio.sleep_forever)

    seen: list[str] = []

    async def call() -> None:
        try:
            await call_host(with_nursery)
        except BaseException as exc:
            seen.append(type(exc).__name__)
            raise

    # A bare cancellation, which the nursery takes for its own; the error alone would have come out of it.
    async with trio.open_nursery() as turn:
        turn.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        turn.cancel_scope.cancel()
    assert seen == ["Cancelled"]
    assert "aside" in caplog.text
