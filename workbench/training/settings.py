"""The numbers of a training: what a step states, and what suits the model where it does not."""

from __future__ import annotations

import math
from dataclasses import dataclass

from workbench.recipes import Distillation, FineTuning

_LORA_FACTOR = 5.0
"""A thin product is far from the weights' own size, so its step is longer (Hu et al. 2021)."""

SCALES_RATE = 8e-3
"""Of multipliers that begin at one. On the bundled model after GPTQ(2, group_size=32), ten steps of
16 windows took perplexity from 21.73 to 20.80 with it, and to 21.51 with 1e-3 (dense: 18.54)."""


@dataclass(frozen=True)
class Settings:
    """Everything that the loop needs to know beside model, data and loss.

    Attributes
    ----------
    epochs : float
    learning_rate : float
        At its highest: it rises over the first 6 % of the steps and falls to zero from there.
    batch_size : int
        Examples per step of the optimizer.
    patience : int or None
        Epochs in which the validation part got no better before the training stops.
    seed : int
    weight_decay : float
        Of matrices; vectors are not decayed.
    head_share : float
        Of the learning rate: what a classifier's head is trained at.
    """

    epochs: float
    learning_rate: float
    batch_size: int
    patience: int | None
    seed: int
    weight_decay: float = 0.01
    head_share: float = 1.0
    warmup: float = 0.06
    clip: float = 1.0

    def factor(self, step: int, total: int) -> float:
        """Return the share of the learning rate at a step, counted from 0, of so many."""
        warm = max(1, round(self.warmup * total))
        return min((step + 1) / warm, (total - step) / max(1, total - warm + 1))


def default_learning_rate(
    n_parameters: int, method: str, *, classifies: bool = False, distils: bool = False
) -> float:
    """Return a learning rate by model size: 1e-3 for a million parameters, 3e-5 for a billion.

    It falls with the root of the number of parameters, which is what published recipes come to:
    1e-5 for 7 B. A classifier, whose head is trained already and whose texts are few, takes a
    quarter: 2e-5 for 110 M, as BERT does (Devlin et al. 2019, appendix A.3); a student twice that.
    """
    if method == "scales":
        return SCALES_RATE
    rate = 1e-3 * math.sqrt(1e6 / max(n_parameters, 1_000_000))
    if classifies:
        rate /= 2 if distils else 4
    return _LORA_FACTOR * rate if method == "lora" else rate


def settings_of(
    step: FineTuning | Distillation, n_parameters: int, *, classifies: bool = False
) -> Settings:
    """Return the settings of a step for a model of so many parameters, and the kind of task."""

    def default(method: str) -> float:
        distils = isinstance(step, Distillation)
        return default_learning_rate(n_parameters, method, classifies=classifies, distils=distils)

    rate = default(step.method) if step.learning_rate is None else step.learning_rate
    scales = step.method == "scales"
    return Settings(
        epochs=step.epochs,
        learning_rate=rate,
        batch_size=step.batch_size,
        patience=step.patience,
        seed=step.seed,
        weight_decay=0.0 if scales else 0.01,
        # Long steps suit multipliers, not the head's weights, which are trained already.
        head_share=min(1.0, default("full") / rate) if scales else 1.0,
    )
