"""What every task offers: parts, examples in batches, scoring, and measurements with errors."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings as python_warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ConfigError, DataError
from workbench.models.load import LoadedModel
from workbench.outcomes import Outcomes
from workbench.progress import SILENT, Monitor
from workbench.records import Measurement, Metric
from workbench.tasks.splits import PARTS
from workbench.uncertainty import (
    Difference,
    Estimate,
    estimate_ratio,
    paired_difference,
    paired_ratio,
)

KL = Metric("kl", "nats", higher_is_better=False)
"""KL divergence from the dense model's predictions to this model's, per prediction."""

BATCH_TOKENS = 2048
"""Padded tokens of a batch: larger batches are not faster on a few CPU cores."""

LOGITS_BYTES = 256 * 1024**2
"""Most float32 bytes of the logits of one batch."""


@dataclass(frozen=True)
class Example:
    """One tokenised example.

    Attributes
    ----------
    index : int
        Position within the part; stable for one tokenizer.
    document : int
        The cluster that it belongs to.
    tokens : list of int
    n_bytes : int
        UTF-8 bytes of the text that is predicted (language models).
    label : int
        Code of the label (classification), else -1.
    n_given : int
        Tokens at the beginning that are given and never predicted (prompts).
    """

    index: int
    document: int
    tokens: list[int]
    n_bytes: int = 0
    label: int = -1
    n_given: int = 0


@dataclass(frozen=True)
class Batch:
    """Examples of one part, padded on the right.

    Attributes
    ----------
    part : str
    examples : tuple of Example
    input_ids : Tensor of shape (examples, tokens), int64
    attention_mask : Tensor of shape (examples, tokens), int64, or None
        One where a token is real; None where no example is padded.
    """

    part: str
    examples: tuple[Example, ...]
    input_ids: Tensor
    attention_mask: Tensor | None


class DenseReference(Protocol):
    """The dense model's predictions, to which KL is measured (``workbench.measure.evaluate``)."""

    model: LoadedModel

    def log_probabilities(self, batch: Batch) -> list[Tensor]:
        """Return one tensor of shape (predictions, classes) per example of the batch."""

    def keep(self, part: str, example: Example, log_probabilities: Tensor) -> None:
        """Remember the dense model's own log-probabilities of an example if there is room."""


class Task(ABC):
    """A user's data and what "good" means on them.

    Attributes
    ----------
    kind : str
        Name of the class of task in saved studies.
    name : str
        For people.
    metrics : tuple of Metric
        The first one is :attr:`primary`; the last is ``kl``.
    warnings : tuple of str
        What is doubtful about the data (overlap between parts, rare classes, few documents).
    options : dict
        Everything beside the data that changes an evaluation; JSON-ready.
    """

    kind: ClassVar[str]
    pools_tokens: ClassVar[bool] = False
    """Whether one prediction is made from all tokens of an example."""
    name: str
    metrics: tuple[Metric, ...]
    warnings: tuple[str, ...] = ()
    options: dict[str, Any]
    _fingerprint: str | None
    _examples: WeakKeyDictionary[Any, dict[tuple[str, int], list[Example]]]

    def __init__(self, name: str, metrics: tuple[Metric, ...], options: dict[str, Any]) -> None:
        self.name = name
        self.metrics = metrics
        self.options = options
        self._fingerprint = None
        self._examples = WeakKeyDictionary()

    @property
    def primary(self) -> Metric:
        """The metric that is shown where none is chosen."""
        return self.metrics[0]

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that depend on the data and on every option."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            header = {"kind": self.kind, "options": self.options}
            digest.update(json.dumps(header, sort_keys=True).encode())
            for row in self._rows():
                digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def metric(self, name: str) -> Metric:
        """Return a metric of this task by name.

        Raises
        ------
        ConfigError
            If the task has no such metric.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        known = ", ".join(m.name for m in self.metrics)
        raise ConfigError(f"The task {self.name!r} has no metric {name!r}; it has {known}.")

    @abstractmethod
    def bind(self, model: LoadedModel, *, monitor: Monitor = SILENT) -> LoadedModel:
        """Return a model that can do the task; the given one is not changed."""

    @abstractmethod
    def logits(
        self, model: LoadedModel, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Return a bound model's logits: what evaluation scores and calibration differentiates.

        Parameters
        ----------
        model : LoadedModel
            Bound to the task.
        input_ids : Tensor of shape (examples, tokens), int64
            On the model's device.
        attention_mask : Tensor of shape (examples, tokens), optional
            One where a token is real; None where no example is padded.

        Returns
        -------
        Tensor
            Shape (examples, tokens, vocabulary) for language models, (examples, classes) for
            classification. Gradients flow where the caller enables them.
        """

    @abstractmethod
    def count_predictions(self, input_ids: Tensor, attention_mask: Tensor) -> int:
        """Return how many predictions a batch holds: next tokens, or examples."""

    @abstractmethod
    def flat_logits(self, logits: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits of a batch's predictions as (predictions, classes).

        Parameters
        ----------
        logits : Tensor
            As :meth:`logits` returns them.
        attention_mask : Tensor of shape (examples, tokens)
        """

    def predictions(self, model: LoadedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return log-probabilities of a batch's predictions, (predictions, classes), float32."""
        logits = self.logits(model, input_ids, attention_mask)
        return self.flat_logits(logits, attention_mask).float().log_softmax(-1)

    def examples(
        self, model: LoadedModel, part: str = "evaluation", *, limit: int | None = None
    ) -> list[Example]:
        """Return the tokenised examples of a part, sorted by index.

        They are made once per tokenizer, part and length, and kept.

        Parameters
        ----------
        model : LoadedModel
            Its tokenizer makes the tokens.
        part : {"evaluation", "validation", "calibration"}
            Which data.
        limit : int, optional
            Take so many of them, evenly spread.
        """
        length = min(self.options["sequence_length"], model.max_length or 2**31)
        kept = self._examples.setdefault(model.tokenizer, {})
        key = (check_part(part), length)
        if key not in kept:
            kept[key] = self._make_examples(model, part, length)
        found = kept[key]
        if limit is not None and limit < len(found):
            found = [found[int((i + 0.5) * len(found) / limit)] for i in range(limit)]
        return found

    def training_examples(self, model: LoadedModel) -> list[Example]:
        """Return what training reads: the tokenised examples of the calibration part, all of them.

        Parameters
        ----------
        model : LoadedModel
            Its tokenizer makes the tokens.
        """
        return self.examples(model, "calibration")

    def predicted(self, batch: Batch) -> Tensor:
        """Return one where a batch's token counts, (examples, tokens); by default if it is real.

        What :meth:`flat_logits` is given in training: a language model predicts these tokens.
        """
        mask = batch.attention_mask
        return torch.ones_like(batch.input_ids) if mask is None else mask

    def targets(self, batch: Batch) -> Tensor:
        """Return what a batch's predictions should be, int64, in the order of :meth:`flat_logits`.

        Parameters
        ----------
        batch : Batch

        Raises
        ------
        ConfigError
            If the examples have no labels; a kind of task without them says here what it trains.
        """
        labels = [example.label for example in batch.examples]
        if min(labels, default=-1) < 0:
            raise ConfigError(
                f"The task {self.name!r} ({type(self).__name__}) does not say what a model should"
                " predict, so none can be trained on it; use LanguageModeling or"
                " TextClassification."
            )
        return torch.tensor(labels, dtype=torch.int64)

    @abstractmethod
    def _make_examples(self, model: LoadedModel, part: str, length: int) -> list[Example]:
        """Return the examples of a part, of at most ``length`` tokens each, sorted by index."""

    @abstractmethod
    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        """Return rows of token ids of the calibration part, shuffled by ``seed``.

        Language models: packed windows of exactly ``sequence_length`` tokens. Classification:
        examples truncated to it. Fewer than wanted is for the caller to judge.
        """

    @abstractmethod
    def estimate(self, metric: str, outcomes: Outcomes) -> Estimate:
        """Return a metric of one evaluation with its influence per document."""

    @abstractmethod
    def _columns(self, batch: Batch, logits: Tensor, dense: list[Tensor] | None) -> dict[str, Any]:
        """Return the outcome columns of one batch, as lists or arrays of one entry per example."""

    @abstractmethod
    def _prediction_logits(self, batch: Batch, logits: Tensor) -> list[Tensor]:
        """Return one view of shape (predictions, classes) per example of a batch's logits."""

    @abstractmethod
    def _rows(self) -> Iterable[dict[str, Any]]:
        """Yield the data as JSON-ready rows."""

    def batches(
        self,
        model: LoadedModel,
        part: str = "evaluation",
        *,
        batch_size: int | None = None,
        limit: int | None = None,
    ) -> list[Batch]:
        """Return a part's examples in padded batches, longest first.

        Parameters
        ----------
        model : LoadedModel
            Its tokenizer makes the tokens; its vocabulary bounds the batches.
        part : {"evaluation", "validation", "calibration"}
            Which data.
        batch_size : int, optional
            Most examples per batch; by default as many as give about 2,048 padded tokens and at
            most 256 MB of logits.
        limit : int, optional
            Use only so many examples.
        """
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} is not accepted; give 1 or more, or None.")
        examples = self.examples(model, part, limit=limit)
        examples = sorted(examples, key=lambda e: (-len(e.tokens), e.index))
        token_budget = self.batch_tokens(model)
        pad = pad_token(model)
        found: list[Batch] = []
        start = 0
        while start < len(examples):
            width = max(len(examples[start].tokens), 1)
            count = batch_size or max(1, token_budget // width)
            found.append(make_batch(part, examples[start : start + count], pad))
            start += count
        return found

    def batch_tokens(self, model: LoadedModel) -> int:
        """Return the most padded tokens that are passed through a model at once."""
        return min(BATCH_TOKENS, self._logits_budget(model))

    def _logits_budget(self, model: LoadedModel) -> int:
        """Return the most padded tokens whose logits may be held at once."""
        return BATCH_TOKENS

    def evaluate(
        self,
        model: LoadedModel,
        part: str = "evaluation",
        *,
        reference: DenseReference | None = None,
        batch_size: int | None = None,
        limit: int | None = None,
        monitor: Monitor = SILENT,
    ) -> Outcomes:
        """Run a bound model over a part and return its outcomes, one row per example.

        Parameters
        ----------
        model : LoadedModel
            As returned by :meth:`bind`; not changed.
        part : {"evaluation", "validation", "calibration"}
            Which data.
        reference : DenseReference, optional
            Fills the column ``kl``; when it is the reference of this very model, the model's
            predictions are kept in it and ``kl`` is zero.
        batch_size, limit : int, optional
            See :meth:`batches`.
        monitor : Monitor
            Told after every batch, stage ``"evaluate"``; may cancel there.

        Returns
        -------
        Outcomes
            Sorted by example.
        """
        monitor.check()
        batches = self.batches(model, part, batch_size=batch_size, limit=limit)
        itself = reference is not None and reference.model is model
        collected: list[dict[str, Any]] = []
        with torch.no_grad():
            for done, batch in enumerate(batches, 1):
                dense = None
                if reference is not None and not itself:
                    dense = reference.log_probabilities(batch)
                logits = self._forward(model, batch)
                columns = self._columns(batch, logits, dense)
                if reference is not None and itself:
                    columns["kl"] = np.zeros(len(batch.examples))
                    views = self._prediction_logits(batch, logits)
                    for example, view in zip(batch.examples, views, strict=True):
                        reference.keep(part, example, view)
                columns["example"] = [e.index for e in batch.examples]
                columns["document"] = [e.document for e in batch.examples]
                collected.append(columns)
                monitor.report("evaluate", done, len(batches), part)
        return _gather(collected)

    def _forward(self, model: LoadedModel, batch: Batch) -> Tensor:
        mask = None if batch.attention_mask is None else batch.attention_mask.to(model.device)
        return self.logits(model, batch.input_ids.to(model.device), mask)

    def dense_logits(self, model: LoadedModel, batch: Batch) -> list[Tensor]:
        """Return a model's logits of one batch, shape (predictions, classes) per example."""
        return self._prediction_logits(batch, self._forward(model, batch))

    def measure(self, outcomes: Outcomes, part: str = "evaluation") -> tuple[Measurement, ...]:
        """Return every metric of one evaluation with its clustered standard error.

        ``kl`` is left out where the outcomes have none.
        """
        measurements = []
        for metric in self.metrics:
            if metric is KL and (len(outcomes) == 0 or np.isnan(_float(outcomes, "kl")).all()):
                continue
            estimate = self.estimate(metric.name, outcomes)
            measurements.append(
                Measurement(
                    metric.name, estimate.value, metric.unit, len(outcomes), estimate.stderr, part
                )
            )
        return tuple(measurements)

    def difference(
        self, metric: str, a: Outcomes, b: Outcomes, *, relative: bool = False
    ) -> Difference:
        """Compare two models on the same examples: a paired difference with a 95 % interval.

        Parameters
        ----------
        metric : str
            Name of one of the task's metrics.
        a, b : Outcomes
            Of two models with the same tokenizer.
        relative : bool
            True for ``a / b`` in place of ``a - b``.

        Raises
        ------
        ConfigError
            If the two were not measured on the same examples.
        """
        if not np.array_equal(a["example"], b["example"]) or not np.array_equal(
            a["document"], b["document"]
        ):
            raise ConfigError(
                f"The two evaluations have {len(a)} and {len(b)} examples that are not the same;"
                " a paired comparison needs one task, one part and one tokenizer."
            )
        compare = paired_ratio if relative else paired_difference
        return compare(self.estimate(metric, a), self.estimate(metric, b))

    def save(self, folder: Path) -> dict[str, Any]:
        """Write a snapshot of the data into ``folder`` and return what :meth:`load` needs.

        Returns
        -------
        dict
            JSON-ready; names a gzip file of JSON lines in ``folder``.
        """
        from workbench.tasks.data import write_snapshot

        file = f"task-{self.fingerprint}.jsonl.gz"
        write_snapshot(folder / file, self._rows())
        return {
            "kind": self.kind,
            "name": self.name,
            "version": 1,
            "fingerprint": self.fingerprint,
            "options": self.options,
            "warnings": list(self.warnings),
            "data": file,
        }

    @classmethod
    @abstractmethod
    def load(cls, saved: dict[str, Any], folder: Path) -> Task:
        """Return the task that :meth:`save` wrote, without the user's own files.

        Raises
        ------
        DataError
            If the snapshot is missing or damaged, or its metric cannot be imported.
        """

    def _check_loaded(self, saved: dict[str, Any]) -> None:
        if self.fingerprint != saved["fingerprint"]:
            raise DataError(
                f"The snapshot of task {self.name!r} is not the one that was saved (fingerprint"
                f" {self.fingerprint}, expected {saved['fingerprint']}); give the task again."
            )

    def _warn(self, messages: Iterable[str]) -> None:
        """Record what is doubtful about the data, and say it once through Python's warnings."""
        self.warnings = tuple(messages)
        if self.warnings:
            text = f"{self.name}: {' '.join(m[:1].upper() + m[1:] for m in self.warnings)}"
            python_warnings.warn(text, UserWarning, stacklevel=_users_level())


def _users_level() -> int:
    """Return the ``stacklevel`` for the caller at which the user's line is warned about."""
    package = str(Path(__file__).parents[1]) + os.sep
    frame = inspect.currentframe()
    frame = frame.f_back if frame is not None else None
    level = 1
    while frame is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    return level


def check_part(part: str) -> str:
    """Return the part's name, or raise ConfigError if there is no such part."""
    if part not in PARTS:
        raise ConfigError(f"part={part!r} is not accepted; give one of {', '.join(PARTS)}.")
    return part


def pad_token(model: LoadedModel) -> int:
    """Return the id that padding is filled with; it is never scored."""
    tokenizer = model.tokenizer
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def make_batch(part: str, examples: Sequence[Example], pad: int) -> Batch:
    """Pad examples on the right into one batch."""
    width = max(len(e.tokens) for e in examples)
    ids = torch.full((len(examples), width), pad, dtype=torch.int64)
    mask = torch.zeros((len(examples), width), dtype=torch.int64)
    for row, example in enumerate(examples):
        length = len(example.tokens)
        ids[row, :length] = torch.tensor(example.tokens, dtype=torch.int64)
        mask[row, :length] = 1
    return Batch(part, tuple(examples), ids, None if bool(mask.all()) else mask)


def ratio(outcomes: Outcomes, numerator: str, denominator: str) -> Estimate:
    """Return the ratio of two columns' sums, clustered by document."""
    return estimate_ratio(outcomes[numerator], outcomes[denominator], outcomes["document"])


def _float(outcomes: Outcomes, name: str) -> np.ndarray:
    return np.asarray(outcomes[name], dtype=np.float64)


_INTEGERS = ("example", "document", "n_predictions", "n_correct", "n_bytes", "label", "prediction")
_DTYPES: dict[str, Any] = {**dict.fromkeys(_INTEGERS, np.int64), "log_probabilities": np.float16}


def _gather(collected: list[dict[str, Any]]) -> Outcomes:
    if not collected:
        raise DataError("There is nothing to evaluate: the part has no example.")
    columns = {
        name: np.concatenate(
            [np.asarray(c[name], dtype=_DTYPES.get(name, np.float64)) for c in collected]
        )
        for name in ("example", "document", *(k for k in collected[0]))
    }
    order = np.argsort(columns["example"], kind="stable")
    return Outcomes({name: column[order] for name, column in columns.items()})
