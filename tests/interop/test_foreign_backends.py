"""GPTQ and AWQ of another program as runs of a study."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.interop.conftest import PYTHON
from tests.toy import toy_task
from workbench.calibration.calibrate import CalibrationOptions
from workbench.methods.backends.gptqmodel_process import PYTHON as BACKEND_PYTHON
from workbench.recipes import AWQ, GPTQ
from workbench.study import Study

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1200)]


def test_both_programs_on_one_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKEND_PYTHON, os.environ[PYTHON])
    few = CalibrationOptions(solve_tokens=1024, judge_tokens=512, sequence_length=128)
    study = Study("demo", toy_task(), tmp_path / "study", calibration=few)
    dense = study.run([]).record.measurement("mean_loss")
    assert dense is not None
    for own, other in (
        (GPTQ(3), GPTQ(3, backend="gptqmodel")),
        (GPTQ(4), AWQ(4, backend="gptqmodel")),
    ):
        run = study.run(other)
        assert run.size_bytes == pytest.approx(study.run(own).size_bytes, rel=0.01)
        found = run.record.measurement("mean_loss")
        assert found is not None
        assert found.value == pytest.approx(dense.value, rel=0.03)
        assert found.value != dense.value
