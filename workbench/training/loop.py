"""The loop: steps of AdamW over shuffled examples, the best epoch kept, resumable at every step.

What a step does depends on the seed, the step's number and the weights alone: the order of the
data is drawn per epoch, dropout per step. So a checkpoint needs no state of random generators,
and a training that goes on from one ends with the same bytes as one that was never stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import CancelledError, CompressionError
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor, loss_words
from workbench.tasks import Batch, Task
from workbench.tasks.base import batches_of
from workbench.tasks.output import Output
from workbench.tensors.devices import autocast, seeded
from workbench.tensors.products import fast_products
from workbench.training.checkpoints import CheckpointFile
from workbench.training.losses import Objective
from workbench.training.settings import Settings
from workbench.training.trainable import Trainable

CHECKPOINT_SECONDS = 30.0
"""Time between two checkpoints: what a kill costs at most, unless writing one takes long."""

CHECKPOINT_SHARE = 0.05
"""Most of the time that is spent on writing checkpoints."""

CANCEL_BYTES = 256 * 1024**2
"""A checkpoint up to this size is also written when a training is cancelled: in half a second."""

CURVE_POINTS = 200
VALIDATION_EXAMPLES = 2000
FORMAT_VERSION = 1


@dataclass
class _State:
    """Where a training stands, beside its tensors; JSON-ready."""

    step: int = 0
    smoothed: float | None = None
    curve: list[list[float]] = field(default_factory=list)
    validations: list[list[float]] = field(default_factory=list)
    best: list[float] | None = None
    best_step: int = 0
    reached: list[float] | None = None
    worse: int = 0


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes
    ----------
    model : LoadedModel
        New, in the dtypes of the model that was given.
    facts : dict
        JSON-ready: ``steps``, ``planned_steps``, ``best_step``, ``epochs``, ``learning_rate``,
        ``examples``, ``trained_parameters``, ``validation`` ([step, loss, error] per epoch),
        ``stopped_early``, ``seconds_per_step`` (validations included), ``resumed_at``,
        ``checkpoint_bytes``, ``checkpoint`` (why none is kept).
    curve : list of [int, float]
        Step and smoothed loss of the training, some 200 points.
    """

    model: LoadedModel
    facts: dict[str, Any]
    curve: list[list[float]]


def train(
    trainable: Trainable,
    task: Task,
    objective: Objective,
    settings: Settings,
    *,
    checkpoint: CheckpointFile | None = None,
    monitor: Monitor = SILENT,
    about: Any = None,
) -> Trained:
    """Train until the last epoch, or until the validation part gets no better.

    Parameters
    ----------
    trainable : Trainable
        Its working copy is changed.
    task : Task
        Its calibration part is trained on, its validation part decides.
    objective : Objective
    settings : Settings
    checkpoint : CheckpointFile, optional
        Begun from if it is of this very training; removed by the caller when the result is safe.
    monitor : Monitor
        Reports stage ``"train"`` by steps, with the loss; asked between parts of a batch.
    about : JSON-ready value, optional
        What else changes the result; a checkpoint of another training is not gone on from.

    Raises
    ------
    CompressionError
        If the loss is not finite.
    CancelledError
        After a checkpoint was written, unless that would take long.
    """
    run = _Run(trainable, task, objective, settings, checkpoint, monitor, about)
    with fast_products():
        return run.complete()


class _Run:
    """One training while it goes on."""

    def __init__(
        self,
        trainable: Trainable,
        task: Task,
        objective: Objective,
        settings: Settings,
        checkpoint: CheckpointFile | None,
        monitor: Monitor,
        about: Any,
    ) -> None:
        self.trainable, self.model = trainable, trainable.model
        self.task, self.objective, self.settings = task, objective, settings
        self.checkpoint, self.monitor = checkpoint, monitor
        self.examples = objective.examples(self.model)
        if not self.examples:
            raise CompressionError(
                f"The calibration part of {task.name!r} holds nothing to train on; give more"
                " text, or a smaller sequence_length."
            )
        self.per_epoch = math.ceil(len(self.examples) / settings.batch_size)
        self.total = max(1, round(settings.epochs * self.per_epoch))
        self.state = _State()
        self.best: dict[str, Tensor] = {}
        self.optimizer = _optimizer(trainable, settings)
        self.key = self._key(about)
        self.validation = objective.validation(self.model, VALIDATION_EXAMPLES)
        self._order: tuple[int, list[int]] = (-1, [])
        self._saved_bytes = 0
        self._begun = (0.0, 0)
        self.not_kept = None if checkpoint is None else checkpoint.refusal(self._bytes())

    def complete(self) -> Trained:
        if self.not_kept:
            warnings.warn(
                f"{self.task.name}: of this training {self.not_kept}. If it is cancelled or killed"
                " it begins anew. Study(…, disk_budget_bytes=…) allows more, and method='lora'"
                " trains fewer weights.",
                stacklevel=2,
            )
        resumed_at = self._resume()
        self._begun = (time.monotonic(), self.state.step)
        self.objective.prepare(self.examples, self.monitor)
        due = time.monotonic() + CHECKPOINT_SECONDS
        while True:
            try:
                if self._is_due():
                    self._validate()
                patience = self.settings.patience
                stopped = patience is not None and self.state.worse >= patience
                if stopped or self.state.step >= self.total:
                    break
                self._step()
                self._report()
            except CancelledError:
                if self._bytes() <= CANCEL_BYTES:
                    self._save()
                raise
            now = time.monotonic()
            if now >= due:
                self._save()
                taken = time.monotonic() - now
                due = now + taken + max(CHECKPOINT_SECONDS, taken / CHECKPOINT_SHARE)
        for name, tensor in self.best.items():
            self.trainable.parameters[name].data.copy_(tensor)
        return Trained(
            self.trainable.finished(), self._facts(resumed_at, stopped), self.state.curve
        )

    # One step

    def _step(self) -> None:
        state, settings = self.state, self.settings
        batches = list(self._micro_batches(state.step))
        weight = sum(self.objective.weight(batch) for batch in batches)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        self.model.hf_model.train()
        with seeded(self.model.device, settings.seed * 1_000_003 + state.step), torch.enable_grad():
            for batch in batches:
                self.monitor.check()
                with autocast(self.model.device):
                    loss = self.objective.loss(self.model, batch) / max(weight, 1e-12)
                loss.backward()
                total += float(loss.detach())
        self.model.hf_model.eval()
        if not math.isfinite(total):
            raise CompressionError(
                f"The loss is {total} at step {state.step + 1} of {self.total}, so the training"
                f" was ended. Give a learning_rate below {settings.learning_rate:.2g}."
            )
        self.trainable.mask_gradients()
        nn.utils.clip_grad_norm_(self.trainable.parameters.values(), settings.clip)
        rate = settings.learning_rate * settings.factor(state.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.optimizer.step()
        self.trainable.keep_in_force()
        state.step += 1
        smoothed = state.smoothed
        state.smoothed = total if smoothed is None else 0.9 * smoothed + 0.1 * total
        every = max(1, self.total // CURVE_POINTS)
        if state.step % every == 0 or state.step == self.total:
            state.curve.append([state.step, round(state.smoothed, 6)])

    def _micro_batches(self, step: int) -> Iterator[Batch]:
        """Yield a step's examples in parts that are passed through the model at once."""
        epoch, index = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.examples), generator=generator).tolist()
            self._order = (epoch, order)
        size = self.settings.batch_size
        chosen = [self.examples[i] for i in self._order[1][index * size : (index + 1) * size]]
        yield from batches_of(self.model, chosen, self.task.batch_tokens(self.model))

    def _report(self) -> None:
        state = self.state
        words = "no checkpoint kept; " if self.not_kept else ""
        assert state.smoothed is not None
        words += loss_words(state.smoothed, state.validations[-1][1] if state.validations else None)
        self.monitor.report("train", state.step, self.total, words)

    # The validation part

    def _is_due(self) -> bool:
        """Return whether an epoch has ended (or none has begun) since the last validation."""
        step = self.state.step
        known = self.state.validations and self.state.validations[-1][0] == step
        return not known and (step % self.per_epoch == 0 or step == self.total)

    @torch.no_grad()
    def _validate(self) -> None:
        state, total, wrong, count = self.state, 0.0, 0.0, 0.0
        self.model.hf_model.eval()
        for done, batch in enumerate(self.validation, 1):
            with autocast(self.model.device):
                found = self.objective.judge(self.model, batch)
            total, wrong, count = total + found[0], wrong + found[1], count + found[2]
            self.monitor.report("validate", done, len(self.validation))
        loss, error = total / max(count, 1e-12), wrong / max(count, 1e-12)
        state.validations.append([state.step, round(loss, 6), round(error, 6)])
        # A classifier goes on getting better while it grows too sure of itself, so errors decide.
        score = [error, loss] if self.task.output is Output.LABELS else [loss]
        if state.best is None or score < state.best:
            state.best, state.best_step = score, state.step
            self.best = {n: p.detach().clone() for n, p in self.trainable.parameters.items()}
        # What the model was before does not count here: many get worse before they get better.
        if state.step and (state.reached is None or score < state.reached):
            state.reached, state.worse = score, 0
        elif state.step:
            state.worse += 1

    # Checkpoints

    def _key(self, about: Any) -> str:
        parts = {
            "version": FORMAT_VERSION,
            "model": self.trainable.given.fingerprint,
            "trained": sorted(self.trainable.parameters),
            "task": self.task.fingerprint,
            "settings": asdict(self.settings),
            "total": self.total,
            "about": about,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _bytes(self) -> int:
        """Return how many bytes a checkpoint has: weights, the best ones, and two moments."""
        return 16 * sum(p.numel() for p in self.trainable.parameters.values())

    def _save(self) -> None:
        if self.checkpoint is None or self.state.step == 0:
            return
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.trainable.parameters.items():
            tensors[f"now/{name}"] = parameter
            if name in self.best:
                tensors[f"best/{name}"] = self.best[name]
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}/{name}"] = value
        meta = {"key": self.key, "state": asdict(self.state)}
        if self.checkpoint.save(tensors, meta):
            self._saved_bytes = sum(t.numel() * t.element_size() for t in tensors.values())

    def _resume(self) -> int | None:
        """Go on from the checkpoint; return its step, None if there is none of this training."""
        found = None if self.checkpoint is None else self.checkpoint.load()
        if found is None or found[1].get("key") != self.key:
            return None
        tensors, meta = found
        device = self.model.device
        for name, parameter in self.trainable.parameters.items():
            parameter.data.copy_(tensors[f"now/{name}"])
            if f"best/{name}" in tensors:
                self.best[name] = tensors[f"best/{name}"].to(device)
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors.get(f"optimizer.{key}/{name}")
                if value is not None:
                    self.optimizer.state[parameter][key] = value.to(device)
        self.state = _State(**meta["state"])
        return self.state.step

    def _facts(self, resumed_at: int | None, stopped: bool) -> dict[str, Any]:
        state = self.state
        facts: dict[str, Any] = {
            "steps": state.step,
            "planned_steps": self.total,
            "best_step": state.best_step,
            "epochs": state.step / self.per_epoch,
            "learning_rate": self.settings.learning_rate,
            "examples": len(self.examples),
            "trained_parameters": sum(p.numel() for p in self.trainable.parameters.values()),
            "validation": state.validations,
            "stopped_early": stopped and state.step < self.total,
        }
        since, first = self._begun
        if state.step > first:  # validations are part of it
            facts["seconds_per_step"] = (time.monotonic() - since) / (state.step - first)
        if resumed_at is not None:
            facts["resumed_at"] = resumed_at
        if self._saved_bytes:
            facts["checkpoint_bytes"] = self._saved_bytes
        if self.not_kept:
            facts["checkpoint"] = self.not_kept
        return facts


def _optimizer(trainable: Trainable, settings: Settings) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = []
    for of_head, share in ((False, 1.0), (True, settings.head_share)):
        chosen = [p for p in trainable.parameters.values() if trainable.is_head(p) == of_head]
        matrices, vectors = ([p for p in chosen if (p.ndim > 1) == flag] for flag in (True, False))
        groups += [
            {"params": matrices, "weight_decay": settings.weight_decay, "share": share},
            {"params": vectors, "weight_decay": 0.0, "share": share},
        ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
