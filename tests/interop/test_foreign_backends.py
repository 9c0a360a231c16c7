"""GPTQ and AWQ of another program as runs of a study."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.interop.conftest import PYTHON
from tests.interop.windows import measured
from workbench.backends.gptqmodel import PYTHON as BACKEND_PYTHON
from workbench.calibrate import CalibrationOptions
from workbench.steps import AWQ, GPTQ, RTN
from workbench.study import Study

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1200)]


def test_both_programs_on_one_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKEND_PYTHON, os.environ[PYTHON])
    few = CalibrationOptions(solve_tokens=4096, judge_tokens=2048, sequence_length=256)
    study = Study("demo", "demo", tmp_path / "study", calibration=few)
    own, other, awq, rtn = (
        study.run(step)
        for step in (
            GPTQ(3),
            GPTQ(3, backend="gptqmodel"),
            AWQ(4, backend="gptqmodel"),
            RTN(3),
        )
    )
    assert own.size_bytes == pytest.approx(other.size_bytes, rel=0.01)
    assert measured(other) < measured(rtn)
    assert measured(own) == pytest.approx(measured(other), rel=0.05)
    assert awq.size_bytes == pytest.approx(study.run(GPTQ(4)).size_bytes, rel=0.01)
    assert measured(awq) == pytest.approx(measured(study.run([])), rel=0.1)
    print({run.label: measured(run) for run in study.runs})
