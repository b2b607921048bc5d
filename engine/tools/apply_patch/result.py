"""The text in which the outcome of a patch goes back to the model (tools.md 1.8)."""

from __future__ import annotations

import json

__all__ = ["model_result"]


def model_result(output: str, exit_code: int, duration: float) -> str:
    """The JSON text `{"output": ..., "metadata": {"exit_code": ..., "duration_seconds": ...}}`.

    `output` is `PatchResult.output`, truncated by the caller; `duration` in seconds is shown to a tenth. A non-zero
    exit code gives the same form, which the caller marks as a failed output.
    """
    metadata = {"exit_code": exit_code, "duration_seconds": int(duration * 10 + 0.5) / 10}
    return json.dumps({"output": output, "metadata": metadata}, ensure_ascii=False, separators=(",", ":"))
