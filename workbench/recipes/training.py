"""Steps that train: on the user's labels, or on what a teacher predicts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import ConfigError
from workbench.recipes.base import Step, option

METHODS = ("full", "lora", "scales")
"""What is trained: all weights, a low-rank product beside them, or the scales of the codes."""

_KEEPS = {
    "full": frozenset({"dense", "masks"}),
    "lora": frozenset({"dense", "codes"}),
    "scales": frozenset({"codes"}),
}


def _method() -> Any:
    return option(
        "full",
        "What is trained. full: every weight that is not quantized; what was pruned stays zero."
        " lora: a thin product beside every layer; merged into dense layers afterwards, stored"
        " beside quantized ones, whose codes stay. scales: only the scales of quantized layers;"
        " nothing is added to the size.",
        choices=METHODS,
        positional=True,
    )


def _epochs(default: float) -> Any:
    return option(
        default,
        "How often the training data is read, at most; see patience.",
        unit="epochs",
        minimum=0.01,
        maximum=1000.0,
    )


def _learning_rate() -> Any:
    return option(
        None,
        "Step size of the optimizer at its highest. Lower it if the loss jumps.",
        minimum=1e-7,
        maximum=1.0,
        none_means="one that suits the model's size and the method",
    )


def _batch_size() -> Any:
    return option(
        16,
        "Examples (windows of text) behind every step of the optimizer.",
        unit="examples",
        minimum=1,
        maximum=4096,
    )


def _patience() -> Any:
    return option(
        2,
        "Stop after so many epochs in which the validation part got no better (texts: by loss,"
        " labels: by errors, then by loss). The weights of the best epoch are kept in any case.",
        unit="epochs",
        minimum=1,
        maximum=100,
        none_means="train for all epochs",
    )


def _rank() -> Any:
    return option(
        16,
        "Columns of the first and rows of the second matrix of the product (lora only).",
        minimum=1,
        maximum=1024,
    )


def _seed() -> Any:
    return option(
        0,
        "Of the order of the data and of dropout. Equal seeds give equal weights on one machine.",
        minimum=0,
        maximum=2**31 - 1,
    )


@dataclass(frozen=True)
class Training(Step):
    """Base class of the steps that train."""

    method: str = _method()

    @property
    def keeps(self) -> frozenset[str]:  # type: ignore[override]
        """Stored forms that may come before, which depends on what is trained."""
        return _KEEPS[self.method]

    @property
    def begins_on_codes(self) -> bool:  # type: ignore[override]
        """Whether the step may come first: scales can be trained of a model loaded as codes."""
        return self.method == "scales"

    def stored_after(self, stored: str) -> str:
        return "corrected" if self.method == "lora" and stored == "codes" else stored

    def refusal(self, stored: str, before: Step | None) -> str:
        name, shown = type(self).__name__, before.label if before is not None else "nothing"
        if stored == "dense":
            return (
                f"{name}(method='scales') trains the scales of quantized layers, and no step before"
                " it quantizes. Put it behind one such as GPTQ(4), or leave method at 'full'."
            )
        if self.method == "lora" and stored == "masks":
            return (
                f"{name}(method='lora') cannot follow {shown}: merging a dense product would fill"
                " the zeros. Give method='full', which keeps them."
            )
        if self.method == "full" and stored in ("codes", "corrected"):
            return (
                f"{name} cannot follow {shown}: the weights are stored as {stored} by then, and"
                " training all of them would destroy these. Give method='lora' or"
                f" method='scales', which keep the codes, or put {name} first."
            )
        return (
            f"{name}(method={self.method!r}) cannot follow {shown}: the weights are stored as"
            f" {stored} by then. Put {name} first, or leave one of the two out."
        )


@dataclass(frozen=True)
class FineTuning(Training):
    """Train on the labels, or on the next tokens, of the task's calibration part.

    The model learns the calibration part; the validation part decides when to stop; the evaluation
    part is never read. Masks of pruned layers stay in force. Dense weights are stored afterwards
    as they were before, in the model's stored dtype.
    """

    title: ClassVar[str] = "Fine-tune"
    about: ClassVar[str] = (
        "Train the model on your data: the way from a general model to a specialist, and the way"
        " back to accuracy after pruning."
    )

    epochs: float = _epochs(5.0)
    learning_rate: float | None = _learning_rate()
    batch_size: int = _batch_size()
    patience: int | None = _patience()
    class_weights: str = option(
        "auto",
        "Weigh rare labels up by how rare they are. auto: if the most frequent label is more than"
        " ten times as frequent as the rarest one.",
        choices=("auto", "balanced", "none"),
    )
    rank: int = _rank()
    seed: int = _seed()

    @property
    def label(self) -> str:
        return f"{self.title}{_shown(self)}"


@dataclass(frozen=True)
class Distillation(Training):
    """Train a student to predict what its teacher predicts (Hinton et al. 2015).

    The teacher is the base model, or what the recipe's leading FineTuning steps made of it, or any
    run of the study. The
    student is what the step before left (so that a pruned or quantized model recovers), with some
    of its blocks where ``blocks`` or ``student`` say so. No other step has to know it: the blocks
    that are left are stored as any dense model is.
    """

    title: ClassVar[str] = "Distil"
    about: ClassVar[str] = (
        "Train a smaller student, or a model that was pruned or quantized, to predict what the"
        " model before it predicts. Needs no labels, and gives back more than labels alone."
    )

    blocks: int | None = option(
        None,
        "Blocks of the student, copied from the model as it is at this step.",
        unit="blocks",
        minimum=1,
        maximum=1000,
        none_means="all: the model recovers in the shape it has",
    )
    keep: str = option(
        "spread",
        "Which blocks the student begins with: evenly spread ones (every second for half of them),"
        " the first ones, or the last ones.",
        choices=("spread", "first", "last"),
    )
    teacher: str | None = option(
        None,
        "Id of a run of this study that teaches instead, of any base model with the same"
        " tokenizer: so any model of the study can be the student of any other.",
        none_means="the model before it was made smaller",
    )
    temperature: float = option(
        2.0,
        "What the teacher's and the student's logits are divided by: above 1 the student also"
        " learns how the teacher ranks what it thinks unlikely.",
        minimum=0.1,
        maximum=20.0,
    )
    divergence: str = option(
        "forward",
        "forward: KL from the teacher to the student, which covers all that the teacher predicts;"
        " reverse: from the student to the teacher, which concentrates on what is likeliest.",
        choices=("forward", "reverse"),
    )
    hard_weight: float = option(
        0.0,
        "Share of the loss that is the labels' (or next tokens') own; the rest is the teacher's. 1"
        " trains a student of fewer blocks without a teacher, to compare with.",
        unit="share",
        minimum=0.0,
        maximum=1.0,
    )
    hidden_weight: float = option(
        0.0,
        "Weight of a third loss: one minus the cosine between the student's and the teacher's"
        " hidden states after each block, evenly matched. 0 leaves it out.",
        minimum=0.0,
        maximum=100.0,
    )
    epochs: float = _epochs(5.0)
    learning_rate: float | None = _learning_rate()
    batch_size: int = _batch_size()
    patience: int | None = _patience()
    rank: int = _rank()
    seed: int = _seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks is not None and self.method != "full":
            raise ConfigError(
                f"Distillation: blocks={self.blocks} with method={self.method!r} is not accepted: a"
                " student of fewer blocks needs all of its weights trained. Leave method at 'full'."
            )
        if self.teacher is not None and not re.fullmatch("[0-9a-f]{12}", self.teacher):
            raise ConfigError(
                f"Distillation: teacher={self.teacher!r} is not accepted; give the id of a finished"
                " run, such as run.id, or None. A model that is not in the study yet comes in by"
                " study.add_model(...) and study.run([], model=...)."
            )
        if self.hard_weight == 1.0 and self.hidden_weight == 0.0 and self.blocks is None:
            raise ConfigError(
                "Distillation: hard_weight=1 leaves nothing to learn from the teacher; give less,"
                " or use FineTuning."
            )

    @property
    def keeps(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"dense"}) if self.blocks is not None else _KEEPS[self.method]

    def refusal(self, stored: str, before: Step | None) -> str:
        if self.blocks is not None and stored != "dense":
            shown = before.label if before is not None else "nothing"
            return (
                f"Distillation(blocks={self.blocks}) cannot follow {shown}: a student of fewer"
                f" blocks is dense, so the {stored} would be lost. Put Distillation first."
            )
        return super().refusal(stored, before)

    @property
    def label(self) -> str:
        blocks = "" if self.blocks is None else f" to {self.blocks} block{'s' * (self.blocks > 1)}"
        alone = " without a teacher" if self.hard_weight == 1 and not self.hidden_weight else ""
        return f"{self.title}{blocks}{alone}{_shown(self)}"


def _shown(step: Training) -> str:
    """Return what tells two trainings apart in a label: method, epochs, seed."""
    parts = [] if step.method == "full" else [step.method]
    epochs: float = getattr(step, "epochs")  # noqa: B009 - every training has them
    parts.append(f"{epochs:g} ep")
    if seed := getattr(step, "seed", 0):
        parts.append(f"seed {seed}")
    return f" ({', '.join(parts)})"
