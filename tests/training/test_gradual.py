from __future__ import annotations

from pathlib import Path

import pytest

from tests.toy import toy_study
from workbench.errors import ConfigError
from workbench.recipes import RTN, Distillation, FineTuning
from workbench.training.gradual import gradual_pruning


def test_every_round_is_a_run_and_the_last_has_the_ratio(tmp_path: Path) -> None:
    study = toy_study(tmp_path / "study")
    run = study.run(gradual_pruning(0.6, 2, FineTuning(epochs=0.5)))
    assert run.record.facts["zero_share"] == pytest.approx(0.6, abs=0.01)
    middle = run.parent
    assert middle.record.facts["zero_share"] == pytest.approx(0.525, abs=0.01)
    assert middle.parent == study.baseline()
    assert len(run.record.facts["training"]) == 2


def test_what_does_not_train_or_keep_masks_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not train"):
        gradual_pruning(0.6, 2, RTN(4))
    with pytest.raises(ConfigError, match="would fill the zeros"):
        gradual_pruning(0.6, 2, Distillation("lora"))
    with pytest.raises(ConfigError, match=r"ratio=1\.0 is not accepted"):
        gradual_pruning(1.0, 2, Distillation())
