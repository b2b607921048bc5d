"""What the engine logs while a command runs: one line each on stderr, a traceback only for who asks for it."""

from __future__ import annotations

import logging

from engine.cli.streams import Stderr

__all__ = ["show_logs"]


class _Lines(logging.Handler):
    def __init__(self, stderr: Stderr, debug: bool) -> None:
        super().__init__(logging.WARNING)
        self._stderr = stderr
        self._debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = self.format(record) if self._debug else record.getMessage()
        if error is not None and not self._debug and str(error) not in text:
            text += f": {type(error).__name__}: {error}"
        self._stderr.line(f"{record.levelname.lower()}: {text}")


def show_logs(stderr: Stderr, *, debug: bool) -> None:
    """Sends warnings and errors of the engine and of the OpenTelemetry SDK to `stderr`; with `debug`, tracebacks too.

    The last call counts.
    """
    for name in ("engine", "opentelemetry"):
        logger = logging.getLogger(name)
        for handler in [handler for handler in logger.handlers if isinstance(handler, _Lines)]:
            logger.removeHandler(handler)
        logger.addHandler(_Lines(stderr, debug))
        logger.propagate = False
