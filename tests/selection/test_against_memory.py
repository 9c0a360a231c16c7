"""Plans against the memory that models really take; slow, because each is run in a process."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.slow
def test_plans_agree_with_resident_memory_within_ten_percent(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from plan_vs_measured import compared

    found = compared("110M")
    assert {row["model"] for row in found["rows"]} == {"demo", "110M"}
    for row in found["rows"]:
        # A few megabytes more are pages that the kernels of this processor bring in.
        most = max(0.1 * row["measured_bytes"], 3e6)
        assert abs(row["planned_bytes"] - row["measured_bytes"]) < most, row
