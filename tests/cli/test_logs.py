"""Log records of the engine become one line on stderr; tracebacks are for who asks."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from engine.cli.logs import show_logs
from engine.cli.streams import Stderr
from engine.errors import StoreError


class Written(Stderr):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def _logger_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("engine", "opentelemetry")]
    before = [(list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate


def log_a_failure() -> None:
    try:
        raise StoreError("disk full")
    except StoreError:
        logging.getLogger("engine.thread_store").exception("could not save")


def test_an_error_is_one_line() -> None:
    stderr = Written()
    show_logs(stderr, debug=False)
    log_a_failure()
    logging.getLogger("engine").info("not worth telling")
    assert stderr.lines == ["error: could not save: StoreError: disk full"]


def test_telemetry_that_can_not_be_sent_is_one_line() -> None:
    stderr = Written()
    show_logs(stderr, debug=False)
    logging.getLogger("opentelemetry.exporter").error("Failed to export")
    assert stderr.lines == ["error: Failed to export"]


def test_with_debug_it_has_its_traceback_and_the_last_call_counts() -> None:
    first, second = Written(), Written()
    show_logs(first, debug=False)
    show_logs(second, debug=True)
    log_a_failure()
    assert first.lines == []
    assert "Traceback" in second.lines[0]
