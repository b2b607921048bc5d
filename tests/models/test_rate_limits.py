"""Rate-limit snapshots."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.models.rate_limits import snapshot_for_limit, snapshot_from_event, snapshots_from_headers

EMPTY = {
    "limit_id": "codex",
    "limit_name": None,
    "primary": None,
    "secondary": None,
    "credits": None,
    "plan_type": None,
    "rate_limit_reached_type": None,
}


def test_without_headers_there_is_the_empty_codex_snapshot() -> None:
    assert snapshots_from_headers({}) == [EMPTY]


def test_windows_and_credits() -> None:
    headers = {
        "x-codex-primary-used-percent": "12.5",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": "1704069000",
        "x-codex-secondary-used-percent": "0",
        "x-codex-secondary-window-minutes": "0",
        "x-codex-credits-has-credits": "True",
        "x-codex-credits-unlimited": "0",
        "x-codex-credits-balance": " 7.5 ",
    }
    assert snapshots_from_headers(headers) == [
        EMPTY
        | {
            "primary": {"used_percent": 12.5, "window_minutes": 300, "resets_at": 1704069000},
            "credits": {"has_credits": True, "unlimited": False, "balance": "7.5"},
        }
    ]


def test_other_limits_follow_when_they_have_data() -> None:
    headers = {
        "x-codex-bengal-primary-used-percent": "80",
        "x-codex-bengal-limit-name": "fast model",
        "x-codex-empty-primary-used-percent": "0",
    }
    found = snapshots_from_headers(headers)
    assert [snapshot["limit_id"] for snapshot in found] == ["codex", "codex_bengal"]
    assert found[1]["limit_name"] == "fast model"
    assert snapshot_for_limit(headers, "codex-bengal") == found[1]


def test_an_event_names_limit_and_plan() -> None:
    raw: dict[str, Any] = {
        "type": "codex.rate_limits",
        "plan_type": "pro",
        "metered_limit_name": "Codex-Other",
        "rate_limits": {"primary": {"used_percent": 3, "window_minutes": 60, "reset_at": 9}, "secondary": None},
        "credits": {"has_credits": True, "unlimited": True, "balance": None},
    }
    assert snapshot_from_event(raw) == EMPTY | {
        "limit_id": "codex_other",
        "plan_type": "pro",
        "primary": {"used_percent": 3.0, "window_minutes": 60, "resets_at": 9},
        "credits": {"has_credits": True, "unlimited": True, "balance": None},
    }


names = st.sampled_from(
    [
        "x-codex-primary-used-percent",
        "x--primary-used-percent",
        "x-a-b-primary-used-percent",
        "x-codex-primary-reset-at",
        "x-codex-credits-unlimited",
        "x-codex-credits-has-credits",
    ]
)


@given(st.dictionaries(names, st.text(max_size=6) | st.sampled_from(["1", "nan", "1e999", "true"])))
def test_any_headers_give_snapshots(headers: dict[str, str]) -> None:
    assert snapshots_from_headers(headers)[0]["limit_id"] == "codex"
