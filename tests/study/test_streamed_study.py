from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.models.load import load_model
from workbench.recipes import GPTQ, RTN, Wanda
from workbench.records import RunState
from workbench.study import Study
from workbench.tasks import LanguageModeling

RECIPES = [RTN(4, group_size=8), GPTQ(3, group_size=8), Wanda(0.5)]


def test_a_study_of_a_streamed_model_finds_what_one_in_memory_does(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model().to(torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    task = LanguageModeling(
        [f"text {n}: " + "the quick brown fox " * 40 for n in range(30)],
        sequence_length=32,
        max_evaluation_tokens=512,
    )
    studies = {}
    for memory in ("resident", "streamed"):
        study = Study(load_model(folder, memory=memory), task, tmp_path / memory)
        studies[memory] = study.sweep(RECIPES)
        assert [run.state for run in studies[memory]] == [RunState.DONE] * len(RECIPES)
        study.close()
    for one, other in zip(studies["streamed"], studies["resident"], strict=True):
        assert one.id == other.id
        assert one.size_bytes == other.size_bytes
        for name in ("perplexity", "kl"):
            assert one.metrics[name] == pytest.approx(other.metrics[name], rel=1e-6, abs=1e-6)

    again = Study.open(tmp_path / "streamed")
    (run,) = again.sweep([RTN(3, group_size=8)])
    assert run.state is RunState.DONE
    found = again.weight_histogram(run, "model.layers.0.self_attn.q_proj")
    assert run.model().streaming is not None
    assert found.before != found.after
