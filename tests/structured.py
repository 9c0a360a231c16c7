"""What tests of structural steps share: a task of token rows, and a way to run a recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from tests.calibration.test_calibrate import OPTIONS, RowsTask
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import Calibrator
from workbench.compression.compress import Compressed, compress
from workbench.models.load import LoadedModel, load_model
from workbench.recipes.recipe import Recipe

IDS = torch.tensor([[5, 9, 77, 120, 33, 200, 41], [8, 44, 2, 91, 250, 17, 130]])


class OutputsTask(RowsTask):
    """Its logits are the first output of the model, whatever that is."""

    def logits(self, model, batch):
        return model.hf_model(**batch.inputs)[0]


def loaded(kind: str, **changes) -> LoadedModel:
    """Return a tiny model; changes are made to its configuration before it is built."""
    hf_model = tiny_model(kind)
    if changes:
        for name, value in changes.items():
            setattr(hf_model.config, name, value)
        torch.manual_seed(0)
        hf_model = type(hf_model)(hf_model.config)
    return load_model(hf_model, tiny_tokenizer(), device="cpu")


def run(model: LoadedModel, steps, folder: Path, *, scale: int = 1) -> Compressed:
    """Return what a recipe makes of a model, with 200 tokens for the solvers or more."""
    tokens = {"solve_tokens": 200 * scale, "judge_tokens": 100 * scale}
    options = dataclasses.replace(OPTIONS, **tokens)
    calibrator = Calibrator(OutputsTask(40 * scale), options, folder=folder)
    return compress(model, Recipe.of(steps), calibrator)


@torch.no_grad()
def outputs(model: LoadedModel) -> torch.Tensor:
    """Return the model's first output for two rows of tokens."""
    return model.hf_model(input_ids=IDS)[0]
