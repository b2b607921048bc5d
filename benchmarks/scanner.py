"""How fast are rollout lines told apart, compiled and pure?"""

from __future__ import annotations

import importlib
import json
import time

from benchmarks.lab import Bench

__all__ = ["run", "sample_rollout"]

MB = 1_000_000
TWINS = {"compiled": "_speedups.scan", "pure": "engine.rollout._scan_py"}


def sample_rollout(size: int) -> bytes:
    """Lines as a session writes them: per turn some short events and one command output of 4 KB."""
    stamp = "2026-01-01T00:00:00.000Z"
    payloads: list[tuple[str, dict[str, object]]] = [
        ("event_msg", {"type": "task_started", "turn_id": "t", "model_context_window": 258400}),
        ("response_item", {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go " * 60}]}),
        (
            "response_item",
            {"type": "function_call", "name": "exec_command", "arguments": '{"cmd":"ls"}', "call_id": "c"},
        ),
        ("response_item", {"type": "function_call_output", "call_id": "c", "output": 'a "quoted" word\n' * 256}),
        ("event_msg", {"type": "token_count", "info": None, "rate_limits": None}),
        ("event_msg", {"type": "agent_message", "message": "done " * 180}),
    ]
    turn = b"".join(
        json.dumps({"timestamp": stamp, "type": kind, "payload": payload}, separators=(",", ":")).encode() + b"\n"
        for kind, payload in payloads
    )
    return turn * max(1, size // len(turn))


def run(bench: Bench) -> None:
    """The rows `scan.*`. The compiled one is missing where there is no compiled module."""
    rounds = bench.plan.size("scans")
    data = sample_rollout(bench.plan.size("scan_mb") * MB)
    bench.results.note_machine("scanner")
    speeds: dict[str, list[float]] = {}
    with bench.progress.stage("scanner", rounds):
        for _ in range(rounds):
            for twin, module in TWINS.items():
                try:
                    scan = importlib.import_module(module).Scan
                except ModuleNotFoundError:
                    continue
                for way in ("forward", "backward"):
                    began = time.perf_counter()
                    for _line in getattr(scan(data), way)():
                        pass
                    speed = len(data) / MB / (time.perf_counter() - began)
                    speeds.setdefault(f"{way}.{twin}", []).append(speed)
            bench.progress.step()
    for key, found in speeds.items():
        way, twin = key.split(".")
        bench.results.figure(f"scan.{key}", f"rollout lines {way}, {twin}", "MB/s").ours.extend(found)
    for way in ("forward", "backward"):
        pairs = zip(speeds.get(f"{way}.compiled", ()), speeds[f"{way}.pure"], strict=False)
        ratio = [compiled / pure for compiled, pure in pairs]
        if ratio:
            bench.results.figure(f"scan.{way}.ratio", f"... {way}, compiled over pure", "x").ours.extend(ratio)
