"""What a training minimises: the labels' own loss, or the distance to what a teacher predicts."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ConfigError
from workbench.models.layers import block_sides, find_blocks
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks import Batch, Example, Task
from workbench.tasks.base import batch_of, batches_of, some_of
from workbench.tasks.output import Output
from workbench.tasks.vectors import SCALE, TextPair, VectorTask

_PAIRS_JUDGED = 32
"""Pairs of a batch of the validation part, whatever those of training are."""

UNBALANCED = 10.0
"""How many times as frequent as the rarest the most frequent label is before "auto" weighs."""


class Objective(ABC):
    """A loss over the predictions of a task.

    Parameters
    ----------
    task : Task

    Attributes
    ----------
    class_weights : Tensor of shape (classes,), float32, or None
        How much each label counts; the validation part is judged by them, too.
    """

    class_weights: Tensor | None = None

    def __init__(self, task: Task) -> None:
        self.task = task

    def examples(self, model: LoadedModel) -> list[Example]:
        """Return what is trained on."""
        return self.task.training_examples(model)

    def validation(self, model: LoadedModel, most: int) -> list[Batch]:
        """Return what decides how long, of at most so many examples."""
        return self.task.batches(model, "validation", limit=most)

    def prepare(self, examples: Sequence[Example], monitor: Monitor = SILENT) -> None:
        """Do once what would be the same in every epoch; by default there is nothing."""
        return

    def weight(self, batch: Batch) -> float:
        """Return what the sum of a batch's losses is divided by."""
        return float(self.task.count_predictions(batch))

    @abstractmethod
    def loss(self, model: LoadedModel, batch: Batch) -> Tensor:
        """Return the sum of the losses of a batch's predictions, with gradients."""

    def judge(self, model: LoadedModel, batch: Batch) -> tuple[float, float, float]:
        """Return a validation batch's summed loss, its wrong predictions, and their whole weight.

        Rare labels count here as they do in training.
        """
        logits = self._logits(model, batch)
        targets = self.task.targets(batch)
        weights = self.class_weights
        each = torch.ones(len(targets)) if weights is None else weights[targets]
        wrong = each[logits.argmax(-1).cpu() != targets].sum()
        loss = hard_loss(self.task, logits, batch, weights)
        return float(loss), float(wrong), float(each.sum())

    def _logits(self, model: LoadedModel, batch: Batch) -> Tensor:
        return flat_logits(self.task, model, batch)


class Labels(Objective):
    """Cross-entropy with the labels, or the next tokens.

    Parameters
    ----------
    task : Task
    class_weights : Tensor of shape (classes,), float32, optional
    """

    def __init__(self, task: Task, class_weights: Tensor | None = None) -> None:
        super().__init__(task)
        self.class_weights = class_weights

    def weight(self, batch: Batch) -> float:
        if self.class_weights is None:
            return super().weight(batch)
        return float(self.class_weights[self.task.targets(batch)].sum())

    def loss(self, model: LoadedModel, batch: Batch) -> Tensor:
        logits = self._logits(model, batch)
        return hard_loss(self.task, logits, batch, self.class_weights)


class Paired(Objective):
    """Vectors of texts that belong together are drawn together, and others apart.

    Pairs without a score: cross-entropy of a text's cosines with the second texts of its batch, of
    which its own is the right one, and others that belong to it do not count (InfoNCE with in-batch
    negatives; van den Oord et al. 2018). Pairs with one: every two pairs of a batch whose cosines
    are not in the order of their scores (CoSENT, as sentence-transformers has it).

    Parameters
    ----------
    task : VectorTask
    """

    def __init__(self, task: VectorTask) -> None:
        super().__init__(task)
        self._vectors = task.vectors
        self._all_pairs = task.pairs
        self._pairs: dict[tuple[str, int], TextPair] = {}

    def examples(self, model: LoadedModel) -> list[Example]:
        return self._first(model, "calibration", self._all_pairs(model, "calibration"))

    def validation(self, model: LoadedModel, most: int) -> list[Batch]:
        pairs = some_of(self._all_pairs(model, "validation"), most)
        examples = self._first(model, "validation", pairs)
        return [
            batch_of(model, "validation", examples[start : start + _PAIRS_JUDGED])
            for start in range(0, len(examples), _PAIRS_JUDGED)
        ]

    def _first(self, model: LoadedModel, part: str, pairs: Sequence[TextPair]) -> list[Example]:
        self._pairs |= {(part, number): pair for number, pair in enumerate(pairs)}
        return [dataclasses.replace(pair.first, index=i) for i, pair in enumerate(pairs)]

    def loss(self, model: LoadedModel, batch: Batch) -> Tensor:
        pairs = [self._pairs[batch.part, example.index] for example in batch.examples]
        second = batch_of(model, batch.part, [pair.second for pair in pairs])
        one, other = self._vectors(model, batch), self._vectors(model, second)
        if pairs[0].score is not None:
            scores = torch.tensor([pair.score for pair in pairs], device=one.device)
            return len(pairs) * order_loss((one * other).sum(-1), scores)
        similar = SCALE * one @ other.T
        belongs = [[b.second.index in a.relevant for b in pairs] for a in pairs]
        also = torch.tensor(belongs, device=one.device) & ~torch.eye(
            len(pairs), dtype=torch.bool, device=one.device
        )
        right = torch.arange(len(pairs), device=one.device)
        return nn.functional.cross_entropy(
            similar.masked_fill(also, -torch.inf), right, reduction="sum"
        )

    def judge(self, model: LoadedModel, batch: Batch) -> tuple[float, float, float]:
        """Return a validation batch's summed loss; vectors have no wrong answers."""
        return float(self.loss(model, batch)), 0.0, float(len(batch.examples))


def order_loss(cosines: Tensor, scores: Tensor) -> Tensor:
    """Return the logarithm of one plus the sum over pairs in the wrong order, weighed by how far.

    Parameters
    ----------
    cosines, scores : Tensor of shape (pairs,)

    Returns
    -------
    Tensor
        Scalar: log(1 + sum over all i, j with score i above score j of
        exp(:data:`SCALE` · (cosine j - cosine i))).
    """
    margins = SCALE * (cosines[None, :] - cosines[:, None])
    margins = margins.masked_fill(~(scores[:, None] > scores[None, :]), -torch.inf)
    return torch.cat([margins.new_zeros(1), margins.flatten()]).logsumexp(0)


class Distilled(Objective):
    """The distance to a teacher's predictions, and what may be added to it.

    Parameters
    ----------
    task : Task
    teacher : LoadedModel
        Bound to the task; not changed.
    temperature : float
        What both sides' logits are divided by; the loss is multiplied by its square, so that
        gradients keep their size (Hinton et al. 2015, section 2).
    reverse : bool
        KL from the student to the teacher in place of KL from the teacher to the student.
    hard_weight : float
        Share of the labels' own loss.
    hidden_weight : float
        Weight of one minus the cosine between hidden states behind evenly matched blocks.
    """

    def __init__(
        self,
        task: Task,
        teacher: LoadedModel,
        *,
        temperature: float,
        reverse: bool = False,
        hard_weight: float = 0.0,
        hidden_weight: float = 0.0,
    ) -> None:
        super().__init__(task)
        self._teacher = teacher
        self._temperature = temperature
        self._reverse = reverse
        self._hard = hard_weight
        self._hidden = hidden_weight
        self._kept: dict[int, Tensor] = {}

    def prepare(self, examples: Sequence[Example], monitor: Monitor = SILENT) -> None:
        """Keep the teacher's logits where there is one small row per example."""
        if not self.task.output.is_pooled or self._hidden or self._hard == 1:
            return
        for batch in batches_of(self._teacher, examples, self.task.batch_tokens(self._teacher)):
            rows = zip(batch.examples, self._teachers(batch), strict=True)
            self._kept |= {example.index: row.cpu() for example, row in rows}
            monitor.report("teacher", len(self._kept), len(examples))

    def loss(self, model: LoadedModel, batch: Batch) -> Tensor:
        modules = _blocks(model) if self._hidden else []
        with _outputs(modules) as states:
            student = self._logits(model, batch)
        if self._hard == 1 and not self._hidden:
            return hard_loss(self.task, student, batch, None)
        if self._kept:
            teacher = torch.stack([self._kept[e.index] for e in batch.examples]).to(student.device)
            hidden: list[Tensor] = []
        else:
            with _outputs(_blocks(self._teacher) if self._hidden else []) as hidden:
                teacher = self._teachers(batch).to(student.device)
        total = (1 - self._hard) * divergence(
            student, teacher, self._temperature, reverse=self._reverse
        )
        if self._hard:
            total = total + self._hard * hard_loss(self.task, student, batch, None)
        if self._hidden:
            mine, theirs = _sides(model, states), _sides(self._teacher, hidden)
            sides = zip(mine, theirs, batch.masks, strict=True)
            distances = [hidden_distance(*side) for side in sides]
            total = total + self._hidden * len(student) * sum(distances) / len(distances)
        return total

    def judge(self, model: LoadedModel, batch: Batch) -> tuple[float, float, float]:
        """Return what :meth:`Objective.judge` says; vectors are judged by the teacher's."""
        if self.task.output is not Output.VECTORS:
            return super().judge(model, batch)
        student, teacher = self._logits(model, batch), self._teachers(batch)
        loss = divergence(student, teacher.to(student.device), 1.0, reverse=False)
        return float(loss), 0.0, float(len(batch.examples))

    @torch.no_grad()
    def _teachers(self, batch: Batch) -> Tensor:
        return self._logits(self._teacher, batch)


def flat_logits(task: Task, model: LoadedModel, batch: Batch) -> Tensor:
    """Return a model's logits of a batch's predictions, (predictions, classes), float32."""
    return task.flat_logits(task.logits(model, batch), batch).float()


def hard_loss(task: Task, logits: Tensor, batch: Batch, class_weights: Tensor | None) -> Tensor:
    """Return the summed cross-entropy of a batch's predictions with what they should be."""
    targets = task.targets(batch).to(logits.device)
    weights = None if class_weights is None else class_weights.to(logits.device)
    if weights is not None and logits.shape[1] > len(weights):  # classes that are no label here
        weights = torch.cat([weights, weights.new_ones(logits.shape[1] - len(weights))])
    return nn.functional.cross_entropy(logits, targets, weights, reduction="sum")


def divergence(student: Tensor, teacher: Tensor, temperature: float, *, reverse: bool) -> Tensor:
    """Return the summed KL divergence at a temperature, times the temperature's square, in nats.

    Parameters
    ----------
    student, teacher : Tensor of shape (predictions, classes), float32
        Logits.
    temperature : float
    reverse : bool
        From the student to the teacher.
    """
    if student.shape != teacher.shape:
        raise ConfigError(
            f"The student predicts {student.shape[-1]} classes or tokens and the teacher"
            f" {teacher.shape[-1]}; both need one vocabulary, and one tokenizer."
        )
    log_q = torch.log_softmax(student / temperature, -1)
    log_p = torch.log_softmax(teacher / temperature, -1)
    first, second = (log_p, log_q) if reverse else (log_q, log_p)
    loss = nn.functional.kl_div(first, second, reduction="sum", log_target=True)
    return loss * temperature**2


def hidden_distance(
    student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None
) -> Tensor:
    """Return one minus the mean cosine of hidden states, the last block matched with the last.

    Parameters
    ----------
    student, teacher : sequence of Tensor of shape (examples, tokens, hidden_size)
        Behind each block.
    mask : Tensor of shape (examples, tokens), optional
        One where a token is real.
    """
    if student[0].shape[-1] != teacher[0].shape[-1]:
        raise ConfigError(
            f"hidden_weight compares hidden states of equal width; the student's have"
            f" {student[0].shape[-1]} and the teacher's {teacher[0].shape[-1]} entries. Give 0."
        )
    total = student[0].new_zeros(())
    for index, own in enumerate(student):
        other = teacher[round((index + 1) * len(teacher) / len(student)) - 1]
        cosine = nn.functional.cosine_similarity(own.float(), other.float(), dim=-1)
        total = total + (cosine.mean() if mask is None else cosine[mask.bool()].mean())
    return 1 - total / len(student)


def class_weights(task: Task, examples: Sequence[Example], how: str) -> Tensor | None:
    """Return weights that make rare labels count more, of mean one over the examples; or None.

    Parameters
    ----------
    task : Task
    examples : sequence of Example
        What is trained on.
    how : {"auto", "balanced", "none"}
        ``"auto"`` weighs only if the most frequent label is ten times as frequent as the rarest.
    """
    labels = [example.label for example in examples]
    if how == "none" or task.output is not Output.LABELS or min(labels, default=-1) < 0:
        return None
    counts = Counter(labels)
    if how == "auto" and max(counts.values()) <= UNBALANCED * min(counts.values()):
        return None
    number = max(len(task.labels), max(counts) + 1)
    weights = torch.ones(number)
    for label, count in counts.items():
        weights[label] = len(labels) / (len(counts) * count)
    return weights


def _sides(model: LoadedModel, states: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Return the hidden states of an encoder-decoder's two sides apart; of others, all at once."""
    first = Counter(block_sides(model.hf_model).values())["encoder"]
    return [states[:first], states[first:]] if first else [states]


def _blocks(model: LoadedModel) -> list[nn.Module]:
    return [model.hf_model.get_submodule(name) for name in find_blocks(model.hf_model)]


@contextmanager
def _outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the hidden states behind each module while the context is open."""
    states: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
