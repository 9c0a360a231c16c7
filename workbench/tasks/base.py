"""What every task offers: parts, examples in batches, scoring, and measurements with errors."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import warnings as python_warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ConfigError, DataError
from workbench.fields import flag, seed, shown, whole, words
from workbench.models.architectures import decoder_start_token
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.records import Measurement, Metric
from workbench.tasks.metric import call_metric, saved_metric, scores_of_examples, use_metric
from workbench.tasks.metrics import KL, OfRows, estimate, measurement
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.output import Output
from workbench.tasks.splits import PARTS
from workbench.tasks.uncertainty import Difference, Estimate, paired_difference, paired_ratio

T = TypeVar("T")

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
        Tokens at the beginning that are given and never predicted (prompts). An encoder-decoder
        reads them with its encoder; where there are none, its decoder copies what the encoder
        reads.
    """

    index: int
    document: int
    tokens: list[int]
    n_bytes: int = 0
    label: int = -1
    n_given: int = 0

    @property
    def given(self) -> list[int]:
        """What an encoder-decoder's encoder reads."""
        return self.tokens[: self.n_given] or self.tokens

    @property
    def target(self) -> list[int]:
        """What an encoder-decoder's decoder predicts."""
        return self.tokens[self.n_given :]


@dataclass(frozen=True)
class Batch:
    """Examples of one part as a model takes them, padded on the right.

    Attributes
    ----------
    part : str
    examples : tuple of Example
    input_ids : Tensor of shape (examples, tokens), int64
        What the model reads; of an encoder-decoder, what its encoder reads.
    attention_mask : Tensor of shape (examples, tokens), int64, or None
        One where a token is real; None where no example is padded.
    decoder_input_ids : Tensor of shape (examples, target tokens), int64, or None
        Of an encoder-decoder: what is predicted, one token later (teacher forcing).
    decoder_attention_mask : Tensor of shape (examples, target tokens), int64, or None
    """

    part: str
    examples: tuple[Example, ...]
    input_ids: Tensor
    attention_mask: Tensor | None
    decoder_input_ids: Tensor | None = None
    decoder_attention_mask: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return dataclasses.replace(self, **moved)

    @property
    def masks(self) -> tuple[Tensor | None, ...]:
        """The attention masks, of the encoder and then of the decoder where there are two."""
        own = self.attention_mask
        return (own,) if self.decoder_input_ids is None else (own, self.decoder_attention_mask)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the model's forward pass takes, by the names of its arguments."""
        named = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "decoder_input_ids": self.decoder_input_ids,
            "decoder_attention_mask": self.decoder_attention_mask,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}


class DenseReference(Protocol):
    """The dense model's predictions, to which KL is measured."""

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
    output : Output
        What one example is answered by.
    labels : tuple of str
        In the order of their codes; none where a task answers something else.
    name : str
        For people.
    metrics : tuple of Metric
        The first one is :attr:`primary`; the last is ``kl``.
    warnings : tuple of str
        What is doubtful about the data (overlap between parts, rare classes, few documents).
    options : dict
        Everything beside the data that changes an evaluation; JSON-ready.
    reading : dict
        How the user's tables were read: the version of the reading, what was detected of each
        table (encoding, delimiter, …), and which rows were left out; JSON-ready. Empty where no
        table was read. The rows themselves are stored as they were read.
    """

    kind: ClassVar[str]
    output: Output
    labels: tuple[str, ...] = ()
    name: str
    metrics: tuple[Metric, ...]
    warnings: tuple[str, ...] = ()
    options: dict[str, Any]
    reading: dict[str, Any]
    _own_metric: Callable[..., Any] | None = None
    _fingerprint: str | None
    _examples: WeakKeyDictionary[Any, dict[tuple[str, int], list[Example]]]

    def __init__(self, name: str, metrics: tuple[Metric, ...], options: dict[str, Any]) -> None:
        self.name = name
        self.metrics = metrics
        self.options = options
        self.reading = {}
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

    @property
    def is_validated(self) -> bool:
        """Whether the validation part is scored as the evaluation part is."""
        return True

    def texts(self, part: str) -> Sequence[str] | None:
        """Return the user's texts of a part by the number of the example.

        None where a model's tokens are all there is to show.
        """
        return None

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

    def trained_form(self, model: LoadedModel, *, monitor: Monitor = SILENT) -> LoadedModel:
        """Return a bound model in the form in which it is trained; by default the same one.

        A classifier whose head no class holds becomes one of its own class, so that what was
        trained and measured is what other programs load.
        """
        return model

    def notes(self, model: LoadedModel, bound: LoadedModel) -> list[str]:
        """Return what has to be said of a model's numbers on this task, as sentences.

        Parameters
        ----------
        model : LoadedModel
            As it was given.
        bound : LoadedModel
            What :meth:`bind` made of it.
        """
        return self._cut_words(bound)

    def _cut_words(self, model: LoadedModel) -> list[str]:
        """Say how many texts are longer than what is read of them."""
        lengths = self.text_lengths(model)
        if not lengths:
            return []
        window = min(self.options["sequence_length"], model.max_length or 2**31)
        cut = [tokens for tokens in lengths if tokens > window]
        if not cut:
            return []
        limit = model.max_length
        more = limit is None or limit > window
        advice = "give a larger sequence_length" if more else f"{model.source.name} takes no more"
        return [
            f"{len(cut)} of {len(lengths)} texts ({100 * len(cut) / len(lengths):.0f} %) are cut at"
            f" {window:,} tokens; they have {min(cut):,} to {max(cut):,}. If what decides stands"
            f" behind that, {advice}."
        ]

    def text_lengths(self, model: LoadedModel) -> list[int]:
        """Return how many tokens texts would have if none were cut, up to 2,000 of them.

        Empty where nothing is cut, as in language modelling, whose texts become several windows.
        """
        return []

    @abstractmethod
    def logits(self, model: LoadedModel, batch: Batch) -> Tensor:
        """Return a bound model's logits: what evaluation scores and calibration differentiates.

        Parameters
        ----------
        model : LoadedModel
            Bound to the task.
        batch : Batch
            On any device.

        Returns
        -------
        Tensor
            Shape (examples, tokens, vocabulary) for language models, (examples, target tokens,
            vocabulary) for encoder-decoders, (examples, classes) for classification. Gradients
            flow where the caller enables them.
        """

    @abstractmethod
    def count_predictions(self, batch: Batch) -> int:
        """Return how many predictions a batch holds: next tokens, or examples."""

    @abstractmethod
    def flat_logits(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the logits of a batch's predictions as (predictions, classes).

        Parameters
        ----------
        logits : Tensor
            As :meth:`logits` returns them.
        batch : Batch
        """

    def predictions(self, model: LoadedModel, batch: Batch) -> Tensor:
        """Return log-probabilities of a batch's predictions, (predictions, classes), float32."""
        logits = self.logits(model, batch)
        return self.flat_logits(logits, batch).float().log_softmax(-1)

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
        limit = whole("examples", "limit", limit, none_means="all of them")
        length = min(self.options["sequence_length"], model.max_length or 2**31)
        kept = self._examples.setdefault(model.tokenizer, {})
        key = (check_part(part), length)
        if key not in kept:
            kept[key] = self._make_examples(model, part, length)
        found = kept[key]
        return found if limit is None else some_of(found, limit)

    def training_examples(self, model: LoadedModel) -> list[Example]:
        """Return what training reads: the tokenised examples of the calibration part, all of them.

        Parameters
        ----------
        model : LoadedModel
            Its tokenizer makes the tokens.
        """
        return self.examples(model, "calibration")

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

    def calibration_examples(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[Example]:
        """Return the calibration windows as examples, in the same order.

        A kind of task says here what of them is given, which an encoder-decoder's encoder reads.
        """
        windows = self.calibration_windows(model, sequence_length=sequence_length, seed=seed)
        return [Example(index, index, row) for index, row in enumerate(windows)]

    def estimate(self, metric: str, outcomes: Outcomes) -> Estimate:
        """Return a metric of one evaluation with its influence per document.

        Raises
        ------
        ConfigError
            If the task has no such metric, or the outcomes lack what it is computed from.
        """
        known = self.metric(metric)
        return estimate(known, outcomes, lambda table: self.statistic(known, table))

    def statistic(self, metric: Metric, outcomes: Outcomes) -> OfRows:
        """Return what computes a metric of the whole set from some rows of the outcomes.

        The user's own metric is one; a kind of task that has others says here which.

        Raises
        ------
        ConfigError
            If the metric is no statistic of this task.
        """
        if metric.statistic == "own":
            own = self._own_metric
            return lambda rows: call_metric(own, *self._own_arguments(outcomes.at(rows)))
        raise ConfigError(
            f"The metric {metric.name!r} cannot be computed from these outcomes: they have the"
            f" columns {', '.join(outcomes.columns)}. Evaluate the model again."
        )

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
        return self._batched(model, part, self.examples(model, part, limit=limit), batch_size)

    def _batched(
        self, model: LoadedModel, part: str, examples: Sequence[Example], batch_size: int | None
    ) -> list[Batch]:
        """Return examples in padded batches, longest first."""
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} is not accepted; give 1 or more, or None.")
        examples = sorted(examples, key=lambda e: (-len(e.tokens), e.index))
        token_budget = self.batch_tokens(model)
        found: list[Batch] = []
        start = 0
        while start < len(examples):
            width = max(len(examples[start].tokens), 1)
            count = batch_size or max(1, token_budget // width)
            found.append(batch_of(model, part, examples[start : start + count]))
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
        batches = self._batched(model, part, self._evaluated(model, part, limit), batch_size)
        itself = reference is not None and reference.model is model
        collected: list[dict[str, Any]] = []
        with torch.no_grad():
            for done, batch in enumerate(batches, 1):
                dense = None
                if reference is not None and not itself:
                    dense = reference.log_probabilities(batch)
                logits, columns = self._score(model, batch, dense)
                if reference is not None and itself:
                    columns["kl"] = np.zeros(len(batch.examples))
                    views = self._prediction_logits(batch, logits)
                    for example, view in zip(batch.examples, views, strict=True):
                        reference.keep(part, example, view)
                columns["example"] = [e.index for e in batch.examples]
                columns["document"] = [e.document for e in batch.examples]
                collected.append(columns)
                monitor.report("evaluate", done, len(batches), part)
        outcomes = _gather(collected)
        for metric in self.metrics:
            if metric.statistic == "own":
                each = scores_of_examples(self._own_metric, *self._own_arguments(outcomes))
                if each is not None and len(each) == len(outcomes) > 1:
                    outcomes.columns[metric.numerator] = each
        return outcomes

    def _evaluated(self, model: LoadedModel, part: str, limit: int | None) -> list[Example]:
        """Return the examples of so many rows of a part."""
        return self.examples(model, part, limit=limit)

    def _score(
        self, model: LoadedModel, batch: Batch, dense: list[Tensor] | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return a batch's logits and the columns of its outcomes."""
        logits = self.logits(model, batch)
        return logits, self._columns(batch, logits, dense)

    def _own_arguments(self, outcomes: Outcomes) -> tuple[Any, ...]:
        """Return what the user's own metric is called with."""
        return (outcomes,)

    def dense_logits(self, model: LoadedModel, batch: Batch) -> list[Tensor]:
        """Return a model's logits of one batch, shape (predictions, classes) per example."""
        return self._prediction_logits(batch, self.logits(model, batch))

    def measure(self, outcomes: Outcomes, part: str = "evaluation") -> tuple[Measurement, ...]:
        """Return every metric of one evaluation with its clustered standard error.

        ``kl`` is left out where the outcomes have none.
        """
        measurements = []
        for metric in self.metrics:
            if metric == KL and (len(outcomes) == 0 or np.isnan(_float(outcomes, "kl")).all()):
                continue
            found = self.estimate(metric.name, outcomes)
            measurements.append(measurement(metric, found, len(outcomes), part))
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
            "output": self.output.value,
            "name": self.name,
            "version": 1,
            "fingerprint": self.fingerprint,
            "options": self.options,
            "warnings": list(self.warnings),
            "reading": self.reading,
            "data": file,
            **saved_metric(self._own_metric, self.fingerprint),
        }

    def saved_again(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Return what :meth:`save` said of this very task, with its files where they are now."""
        return saved if self._own_metric is None else use_metric(saved, self._own_metric)

    @classmethod
    @abstractmethod
    def load(cls, saved: dict[str, Any], folder: Path) -> Task:
        """Return the task that :meth:`save` wrote, without the user's own files.

        Raises
        ------
        DataError
            If the snapshot is missing or damaged.
        """

    def _check_loaded(self, saved: dict[str, Any]) -> None:
        """Take over what was said of the data when it was read, and check that it is the same."""
        self.warnings = tuple(saved.get("warnings", ()))
        self.reading = dict(saved.get("reading", {}))
        if self.fingerprint != saved["fingerprint"]:
            raise DataError(
                f"The snapshot of task {self.name!r} is not the one that was saved (fingerprint"
                f" {self.fingerprint}, expected {saved['fingerprint']}); give the task again."
            )

    def _warn(self, messages: Iterable[str]) -> None:
        """Record what is doubtful about the data, and say it once through Python's warnings."""
        self.warnings = tuple(messages)
        self.say(self.warnings)

    def say(self, messages: Sequence[str]) -> None:
        """Say sentences through Python's warnings, at the user's line."""
        if messages:
            text = f"{self.name}: {' '.join(m[:1].upper() + m[1:] for m in messages)}"
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


MOST_LENGTH = 2**20
"""Tokens of the longest example; models of more are not known."""


def checked_options(owner: str, options: Mapping[str, Any], *, least: int = 2) -> dict[str, Any]:
    """Return a task's options with the numbers that all kinds of task share checked.

    Parameters
    ----------
    owner : str
        The class, for the message.
    options : mapping
    least : int
        Of the sequence length.

    Raises
    ------
    ConfigError
        If one is not accepted.
    """
    found = dict(options)
    length = found["sequence_length"]
    found["sequence_length"] = whole(
        owner, "sequence_length", length, minimum=least, maximum=MOST_LENGTH, unit="tokens"
    )
    for name in ("max_evaluation_examples", "max_evaluation_tokens"):
        if name in found:
            meaning = "all of the evaluation part"
            found[name] = whole(owner, name, found[name], none_means=meaning)
    if "seed" in found:
        found["seed"] = seed(owner, found["seed"])
    return found


def checked_name(owner: str, name: Any, encoding: Any, higher_is_better: Any = None) -> Any:
    """Return the name that was given to a task, after checking what else is not data.

    Raises
    ------
    ConfigError
        If the name, the encoding of its files or a metric's direction is not accepted.
    """
    words(owner, "encoding", encoding, none_means="finding it out", most=100)
    if higher_is_better is not None:
        flag(owner, "higher_is_better", higher_is_better)
    return words(owner, "name", name, none_means="that of the data")


def some_of(rows: Sequence[T], most: int = 2000) -> list[T]:
    """Return at most so many items, evenly spread."""
    if len(rows) <= most:
        return list(rows)
    return [rows[int((i + 0.5) * len(rows) / most)] for i in range(most)]


def check_part(part: str) -> str:
    """Return the part's name, or raise ConfigError if there is no such part."""
    if not isinstance(part, str) or part not in PARTS:
        raise ConfigError(f"part={shown(part)} is not accepted; give one of {', '.join(PARTS)}.")
    return part


def pad_token(model: LoadedModel) -> int:
    """Return the id that padding is filled with; it is never scored."""
    return model.pad_token_id


def make_batch(
    part: str, examples: Sequence[Example], pad: int, decoder_start: int | None = None
) -> Batch:
    """Pad examples on the right into one batch.

    Parameters
    ----------
    part : str
    examples : sequence of Example
    pad : int
        What is filled in.
    decoder_start : int, optional
        What an encoder-decoder's decoder reads first; None for other models.
    """
    if decoder_start is None:
        return Batch(part, tuple(examples), *_padded([e.tokens for e in examples], pad))
    given = _padded([e.given for e in examples], pad)
    shifted = _padded([[decoder_start, *e.target[:-1]] for e in examples], pad)
    return Batch(part, tuple(examples), *given, *shifted)


def _padded(rows: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor | None]:
    """Return the rows as one tensor, and one where a token is real (None if all are)."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[number, : len(row)] = 1
    return ids, None if bool(mask.all()) else mask


def batch_of(model: LoadedModel, part: str, examples: Sequence[Example]) -> Batch:
    """Return examples as one batch, laid out and padded as a model takes them."""
    check_tokens(model, examples)
    start = decoder_start_token(model.hf_model.config) if model.is_encoder_decoder else None
    return make_batch(part, examples, pad_token(model), start)


def check_tokens(model: LoadedModel, examples: Sequence[Example]) -> None:
    """Raise ConfigError if a text has a token that the model has no embedding for."""
    rows = model.n_embeddings
    for example in examples:
        if max(example.tokens, default=0) >= rows:
            token = max(example.tokens)
            name = model.tokenizer.convert_ids_to_tokens(token)
            raise ConfigError(
                f"Text {example.index} has the token {name!r} ({token}), and {model.source.name}"
                f" embeds only {rows:,}: it was added to the tokenizer alone. Take it out of the"
                " tokenizer or the texts, or give a model with"
                " hf_model.resize_token_embeddings(len(tokenizer))."
            )


def batches_of(
    model: LoadedModel, examples: Sequence[Example], most_tokens: int
) -> Iterator[Batch]:
    """Yield examples of the calibration part, those of similar length together, shortest first.

    Parameters
    ----------
    model : LoadedModel
    examples : sequence of Example
    most_tokens : int
        Padded tokens of a batch; one example alone may have more.
    """
    waiting: list[Example] = []
    for example in sorted(examples, key=lambda e: (len(e.tokens), e.index)):
        if waiting and (len(waiting) + 1) * len(example.tokens) > most_tokens:
            yield batch_of(model, "calibration", waiting)
            waiting = []
        waiting.append(example)
    if waiting:
        yield batch_of(model, "calibration", waiting)


def _float(outcomes: Outcomes, name: str) -> np.ndarray:
    return np.asarray(outcomes[name], dtype=np.float64)


_INTEGERS = ("example", "document", "n_predictions", "n_correct", "n_bytes", "label", "prediction")
_DTYPES: dict[str, Any] = {
    **dict.fromkeys(_INTEGERS, np.int64),
    "log_probabilities": np.float16,
    "vector": np.float32,
}


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
