"""A toy task, model and study, small enough that a run takes a fraction of a second.

Its metric does as a file says that the environment variable ``TOY_BEHAVIOUR`` names, also in a
worker process, which imports it from here.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import CalibrationOptions
from workbench.models.load import LoadedModel, load_model
from workbench.study import Study
from workbench.tasks import LanguageModeling
from workbench.tasks.outcomes import Outcomes

CALIBRATION = CalibrationOptions(solve_tokens=512, judge_tokens=256, sequence_length=32)


def texts(n: int = 40) -> list[str]:
    """Return documents that differ."""
    rng = np.random.default_rng(0)
    words = ["fox", "dog", "quick", "brown", "lazy", "jumps", "over", "under", "the", "a"]
    return [" ".join(rng.choice(words, 120)) + f" {i}." for i in range(n)]


def mean_loss(outcomes: Outcomes) -> float:
    """Return the mean loss; before that sleep, print or die as the file says."""
    path = os.environ.get("TOY_BEHAVIOUR")
    behaviour = Path(path).read_text() if path and Path(path).exists() else ""
    if behaviour == "sleep":
        time.sleep(60)
    elif behaviour == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif behaviour == "exit":
        print("the last words", file=sys.stderr)
        os._exit(3)
    elif behaviour == "print":
        print("not an event")
        os.write(1, b"nor is this\n")
    elif behaviour == "fail":
        raise MemoryError("cannot allocate 3 TB")
    return float(outcomes["loss"].sum() / outcomes["n_predictions"].sum())


mean_loss.higher_is_better = False  # type: ignore[attr-defined]


def toy_task(**options: Any) -> LanguageModeling:
    """Return language modelling on toy texts, measured by :func:`mean_loss`."""
    options = {"sequence_length": 32, "max_evaluation_tokens": 400, "name": "toy"} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LanguageModeling(texts(), metric=mean_loss, **options)


def toy_model(seed: int = 0, name: str = "tiny") -> LoadedModel:
    """Return a live model of random weights."""
    hf_model = tiny_model(seed=seed)
    hf_model.config._name_or_path = name
    return load_model(hf_model, tiny_tokenizer())


def toy_study(path: Path, **options: Any) -> Study:
    """Return a study of the toy model on the toy task."""
    return Study(toy_model(), toy_task(), path, **({"calibration": CALIBRATION} | options))
