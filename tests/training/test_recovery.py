"""What the README promises about recovery, on the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.recipes import GPTQ, Distillation, MagnitudePruning
from workbench.study import Run, Study
from workbench.tensors.weights import CorrectedWeight, PrunedWeight, QuantizedWeight


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    path: Path = tmp_path_factory.mktemp("recovery") / "study"
    return Study("demo", "demo", path)


def accuracy(run: Run) -> float:
    found = run.record.measurement("accuracy")
    assert found is not None
    return found.value


@pytest.mark.slow
def test_two_thirds_of_what_pruning_lost_come_back_with_the_masks_intact(study: Study) -> None:
    pruned = study.run(MagnitudePruning(0.6))
    recovered = pruned.then(Distillation(epochs=1))
    dense = study.baseline()
    assert dense is not None
    lost = accuracy(dense) - accuracy(pruned)
    assert lost > 0.05
    assert accuracy(recovered) - accuracy(pruned) >= lost * 2 / 3
    before, after = study.model(pruned), study.model(recovered)
    for name, weight in before.weights.items():
        trained = after.weights[name]
        assert isinstance(weight, PrunedWeight)
        assert isinstance(trained, PrunedWeight)
        assert trained.mask.equal(weight.mask)
    small = recovered.then(GPTQ(4, group_size=32))
    assert small.record.facts["zero_share"] >= 0.6
    assert accuracy(small) > accuracy(recovered) - 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kind", "least"),
    [("scales", QuantizedWeight, 0.004), ("lora", CorrectedWeight, 0.004)],
)
def test_a_quantized_model_comes_closer_to_its_teacher(
    study: Study, method: str, kind: type, least: float
) -> None:
    quantized = study.run(GPTQ(2, group_size=32))
    tuned = quantized.then(Distillation(method, epochs=0.25))
    assert accuracy(tuned) > accuracy(quantized) + least
    assert all(isinstance(weight, kind) for weight in study.model(tuned).weights.values())
    assert (tuned.size_bytes == quantized.size_bytes) == (method == "scales")
