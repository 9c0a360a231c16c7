"""Text classification on the user's own labelled texts: accuracy and macro-F1."""

from __future__ import annotations

import dataclasses
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workbench.errors import ConfigError, DataError, UnsupportedArchitectureError
from workbench.fields import listed, texts_given
from workbench.models.architectures import has_lone_encoder, is_seq2seq, refuse_unsupported
from workbench.models.classifiers import as_classifier, last_layer
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.stored_paths import within
from workbench.tasks.base import (
    Batch,
    Example,
    Task,
    batches_of,
    checked_name,
    checked_options,
    pad_token,
    some_of,
)
from workbench.tasks.data import Row, read_snapshot
from workbench.tasks.head import extract_features, pooled_features, train_head
from workbench.tasks.label_matching import (
    check_label_map,
    class_names,
    columns_for,
    has_own_head,
    named_by,
    replaced_words,
)
from workbench.tasks.labels import UNORDERED, ordered_labels, were_unordered
from workbench.tasks.metric import describe_metric, find_metric
from workbench.tasks.metrics import ACCURACY, KL, MACRO_F1
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.output import Output
from workbench.tasks.padding import own_head_logits
from workbench.tasks.parts import Tables
from workbench.tasks.scoring import log_probabilities, score
from workbench.tasks.splits import PARTS, deal, document_codes, overlap
from workbench.tasks.tables import Reading

SHARES = {"calibration": 0.7, "evaluation": 0.2, "validation": 0.1}
"""Share of the rows that each part gets where parts are split, not given."""

LEAST_ROWS = 10
MAX_HEAD_ROWS = 20_000
"""Most rows that a head is trained on."""

_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""An integer that is its own text again."""

MAX_KEPT_CLASSES = 256
"""With more classes than this their probabilities are not kept per example."""


class TextClassification(Task):
    """Predict the label of the user's texts.

    A model that has no head for these labels gets one by :meth:`bind`: a linear classifier on
    mean-pooled frozen features, trained on the calibration part; the validation part chooses its
    L2 penalty, and the evaluation part is never touched.

    Parameters
    ----------
    source : str, Path, data frame, dataset, mapping of columns or list of records, optional
        A .csv, .tsv, .jsonl, .ndjson, .json, .parquet or .xlsx file (all but the last two also
        packed, as .csv.gz), or a table in memory (pandas, polars, pyarrow). A
        ``datasets.DatasetDict``, or another mapping of names to tables or files, gives its train,
        validation and test parts, also where they are called val, dev, eval and the like.
    text, label : str
        Columns. Labels are text as they are written: ``007`` and ``7`` are two.
    document : str, optional
        Column that says which rows belong together (a customer, a ticket): they stay in one part,
        and errors are clustered by it. Without it every row stands for itself.
    columns : sequence of str
        Further columns to slice results by, such as a channel or a country; see ``study.trust``.
    calibration, validation, evaluation : like ``source``, optional
        Parts given explicitly; those not given are split from ``source`` by label (70, 10 and
        20 % of the rows) or, without a source, validation is split from calibration.
    sequence_length : int
        Longer texts are cut after so many tokens (capped at what the model takes).
    max_evaluation_examples : int or None
        Most rows that an evaluation uses, taken at random by ``seed``; None takes all.
    seed : int
        Of the split into parts.
    metric : callable, optional
        Your own metric: called with two arrays, the labels and the predictions (integers if all
        labels are plain ones, such as 7 and not 007; else strings as written), returns a float,
        whose standard error comes from a jackknife over documents, or one number per example, of
        which it is the mean. It becomes the primary metric.
    higher_is_better : bool, optional
        Of your own metric; needed unless it has an attribute of that name.
    name : str, optional
        For tables and plots.
    encoding, delimiter, quote, header, sheet, on_bad_rows
        How files are read, see :class:`~workbench.tasks.tables.Reading`; by default encoding,
        separator, quotes and header are detected, and a row that cannot be meant is an error.
        What was detected and left out is in :attr:`reading`.
    label_map : mapping or "index", optional
        Which class of a model that has a head of its own each label is: its name or its number.
        ``"index"``: the labels in their order are the classes in theirs. Without it they are
        matched by name, whatever the case; where they do not match the head is replaced, which
        is said.

    Raises
    ------
    DataError
        If a file or column does not exist, texts or labels are missing, or there are too few rows
        or labels.

    Examples
    --------
    >>> rows = {"text": [f"text {i}" for i in range(200)], "label": ["+", "-"] * 100}
    >>> task = TextClassification(rows)
    >>> task.labels
    ('+', '-')
    """

    kind: ClassVar[str] = "text_classification"
    output = Output.LABELS

    def __init__(
        self,
        source: Any = None,
        *,
        text: str = "text",
        label: str = "label",
        document: str | None = None,
        columns: Sequence[str] = (),
        calibration: Any = None,
        validation: Any = None,
        evaluation: Any = None,
        sequence_length: int = 256,
        max_evaluation_examples: int | None = 4000,
        seed: int = 0,
        metric: Callable[[NDArray[Any], NDArray[Any]], float] | None = None,
        higher_is_better: bool | None = None,
        name: str | None = None,
        encoding: str | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        header: bool | None = None,
        sheet: str | None = None,
        on_bad_rows: str = "error",
        label_map: Mapping[str, str | int] | str | None = None,
    ) -> None:
        columns = listed(type(self).__name__, "columns", columns, "a list of names of columns")
        name = checked_name(type(self).__name__, name, encoding, higher_is_better)
        options = checked_options(
            type(self).__name__,
            {
                "sequence_length": sequence_length,
                "max_evaluation_examples": max_evaluation_examples,
                "seed": seed,
            },
        )
        tables = Tables(
            source,
            {"calibration": calibration, "validation": validation, "evaluation": evaluation},
            Reading(encoding, delimiter, quote, header, sheet, on_bad_rows),
        )
        pool, rows = tables.all_rows(text=text, label=label, document=document, more=columns)
        if label_map is not None:
            options["label_map"] = (
                {str(name): code for name, code in label_map.items()}
                if isinstance(label_map, Mapping)
                else label_map
            )
        self._set(
            _complete(rows, pool, label, options["seed"]),
            name or tables.name("classification"),
            options,
            metric,
            higher_is_better,
        )
        self.reading = tables.described()
        self._warn(tables.findings() + self._findings())

    def _set(
        self,
        rows: dict[str, tuple[Row, ...]],
        name: str,
        options: dict[str, Any],
        metric: Callable[..., float] | None,
        higher_is_better: bool | None,
        labels: Sequence[str] | None = None,
    ) -> None:
        options = checked_options(type(self).__name__, options)
        super().__init__(name, (ACCURACY, MACRO_F1, KL), options)
        self.rows = rows
        found = {row.label for part in PARTS for row in rows[part]}
        self.labels = ordered_labels(found) if labels is None else tuple(labels)
        check_label_map(options.get("label_map"), self.labels)
        self._own_metric = metric
        if metric is not None:
            own = describe_metric(metric, higher_is_better, tuple(m.name for m in self.metrics))
            self.metrics = (own, *self.metrics)
            self.options |= {"metric": own.name, "higher_is_better": own.higher_is_better}
        self._code = {name: code for code, name in enumerate(self.labels)}
        self._documents = document_codes(rows)

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {len(self.rows[part])}" for part in PARTS)
        return f"TextClassification({self.name!r}: {len(self.labels)} labels, rows: {counts})"

    def _findings(self) -> list[str]:
        findings = overlap({part: [row.text for row in rows] for part, rows in self.rows.items()})
        if len(self.rows["evaluation"]) < 30:
            count = len(self.rows["evaluation"])
            findings.append(
                f"the evaluation part has only {count} row{'s' * (count != 1)}, so accuracy is"
                " known only roughly; give more rows."
            )
        seen = {row.label for row in self.rows["calibration"]}
        unseen = [name for name in self.labels if name not in seen]
        if unseen:
            shown = ", ".join(map(repr, unseen[:5])) + (" …" if len(unseen) > 5 else "")
            findings.append(
                f"{len(unseen)} of {len(self.labels)} labels have no row in the calibration part"
                f" ({shown}), so no model can learn them; give more rows of them, or remove them."
            )
        return findings

    def texts(self, part: str) -> Sequence[str]:
        """Return the texts of a part."""
        return [row.text for row in self.rows[part]]

    def bind(self, model: LoadedModel, *, monitor: Monitor = SILENT) -> LoadedModel:
        """Return a model with a head for this task's labels.

        A head with these labels that the model has already is used (one that was bound and saved
        before, or the own one of a model for sequence classification whose ``id2label`` has the
        labels, whatever their case). Otherwise a linear head is trained; it takes one pass over
        the calibration and validation parts (20,000 rows at most) and some seconds.

        Parameters
        ----------
        model : LoadedModel
            Not changed; the returned one shares its weights.
        monitor : Monitor
            Reports stages ``"features"`` (by batches) and ``"head"``.

        Raises
        ------
        UnsupportedArchitectureError
            If the model is an encoder-decoder or reads no text.
        """
        kind = type(model.hf_model).__name__
        refuse_unsupported(repr(model.source.name), model.hf_model.config, kind)
        if model.is_encoder_decoder and is_seq2seq(kind):
            alone = (
                ", or load the encoder alone: load_model(AutoModelForTextEncoding"
                ".from_pretrained(folder), tokenizer)"
            )
            raise UnsupportedArchitectureError(
                f"{model.source.name!r} ({kind}) is an encoder-decoder, which writes its answers"
                " and has no use for a head of labels. Give Extraction with fields= the column of"
                f" labels{alone if has_lone_encoder(model.hf_model.config) else ''}."
            )
        named = self._named(model)
        if named is not None:
            return named
        bare = dataclasses.replace(model, weights=dict(model.weights), head=None)
        # labels match nothing: the features below come from the backbone alone
        training, validation = (
            extract_features(bare, self.batches(bare, part, limit=MAX_HEAD_ROWS), monitor=monitor)
            for part in ("calibration", "validation")
        )
        head = train_head(*training, self.labels, validation=validation, monitor=monitor)
        return dataclasses.replace(model, weights=dict(model.weights), head=head)

    def trained_form(self, model: LoadedModel, *, monitor: Monitor = SILENT) -> LoadedModel:
        """Return a bound model in its class's own form, see :class:`Task`.

        The last layer begins as the best linear one on what the class gives it.
        """
        if model.head is None:
            return model
        found = as_classifier(model, self.labels)
        last = None if found is None else last_layer(found)
        if found is None or last is None:
            return model
        layer: Any = found.hf_model.get_submodule(last)
        found.hf_model.set_submodule(last, nn.Identity())
        training, validation = (
            extract_features(
                found,
                self.batches(found, part, limit=MAX_HEAD_ROWS),
                features_of=own_head_logits,
                monitor=monitor,
            )
            for part in ("calibration", "validation")
        )
        found.hf_model.set_submodule(last, layer)
        has_bias = layer.bias is not None
        head = train_head(
            *training, self.labels, validation=validation, has_bias=has_bias, monitor=monitor
        )
        with torch.no_grad():
            layer.weight.copy_(head.weight.to(model.stored_dtype))
            if has_bias:
                layer.bias.copy_(head.bias.to(model.stored_dtype))
        return found

    def _named(self, model: LoadedModel) -> LoadedModel | None:
        """Return a model whose classes are this task's labels, None if its are others."""
        label_map = self.options.get("label_map")
        own = class_names(model) if model.head is None else None
        if own is not None and label_map is not None and not set(self.labels) <= set(own):
            return named_by(model, self.labels, label_map)
        if columns_for(self.labels, model) is None:
            return None
        kind = getattr(model.hf_model.config, "problem_type", None)
        if own is not None and kind == "multi_label_classification":
            raise ConfigError(
                f"{model.source.name} is a classifier of several labels per text (its problem_type"
                f" is {kind!r}): each class is judged by itself. TextClassification gives every"
                " text the one likeliest label, which is another question. Set"
                ' hf_model.config.problem_type = "single_label_classification" if one label per'
                " text is what you want, or give the backbone alone (hf_model.base_model)."
            )
        return model

    def text_lengths(self, model: LoadedModel) -> list[int]:
        """Return how many tokens texts would have if none were cut, see :class:`Task`."""
        texts = [row.text for part in PARTS for row in self.rows[part]]
        ids = model.tokenizer(some_of(texts), truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]

    def notes(self, model: LoadedModel, bound: LoadedModel) -> list[str]:
        """Return what is to be said of a model on this task, see :class:`Task`."""
        found = super().notes(model, bound)
        if has_own_head(model) and bound.head is not None:
            found.append(replaced_words(dataclasses.replace(model, head=None), self.labels))
        return found

    def logits(self, model: LoadedModel, batch: Batch) -> Tensor:
        """Return a bound model's logits of shape (examples, classes).

        The first columns are this task's labels in order; a model with more classes has those
        after them.
        """
        inputs = batch.to(model.device)
        found = label_logits(self.labels, model, inputs.input_ids, inputs.attention_mask)
        if found is None:
            raise ConfigError(
                f"{model.source.name} has no head for the labels of {self.name!r}; use the model"
                " that task.bind(model) returns."
            )
        return found

    def classify(self, model: LoadedModel, texts: Sequence[str]) -> list[str]:
        """Return the label that a model gives each text, in their order.

        Parameters
        ----------
        model : LoadedModel
            What :meth:`bind` or ``study.model(run)`` returned.
        texts : sequence of str
            Cut at the task's ``sequence_length``, as the evaluated ones are.

        Raises
        ------
        ConfigError
            If one text is given instead of several, or the model has no head for these labels.
        """
        return [self.label_of(sure.argmax()) for sure in self.probabilities(model, texts)]

    def label_of(self, code: int) -> str:
        """Return the label of a model's class, ``"(other)"`` of one that the task does not know."""
        return self.labels[code] if code < len(self.labels) else "(other)"

    def probabilities(self, model: LoadedModel, texts: Sequence[str]) -> np.ndarray:
        """Return how sure a model is of each label, for each text; see :meth:`classify`.

        Returns
        -------
        ndarray of shape (texts, classes)
            In the order of :attr:`labels`; a head may have further classes behind these.
        """
        texts = texts_given("classify", "texts", texts)
        if not texts:
            return np.zeros((0, len(self.labels)))
        length = self.options["sequence_length"]
        rows = self._tokenize(model, texts, length)
        examples = [Example(i, i, row) for i, row in enumerate(rows)]
        found: list[np.ndarray] = [np.zeros(0)] * len(texts)
        with torch.no_grad():
            for batch in batches_of(model, examples, 16 * length):
                logs = log_probabilities(self.logits(model, batch)).double().cpu().numpy()
                for example, sure in zip(batch.examples, np.exp(logs), strict=True):
                    found[example.index] = sure
        return np.stack(found)

    def count_predictions(self, batch: Batch) -> int:
        return len(batch.examples)

    def flat_logits(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits

    def _make_examples(self, model: LoadedModel, part: str, length: int) -> list[Example]:
        """Return the tokenised rows; ``index`` is the row's position within its part."""
        rows = list(enumerate(self.rows[part]))
        most = self.options["max_evaluation_examples"] if part == "evaluation" else None
        if most is not None and most < len(rows):
            generator = random.Random(self.options["seed"])
            rows = sorted(generator.sample(rows, most), key=lambda row: row[0])
        tokens = self._tokenize(model, [row.text for _, row in rows], length)
        return [
            Example(index, self._documents[part][index], ids, label=self._code[row.label])
            for (index, row), ids in zip(rows, tokens, strict=True)
        ]

    def _tokenize(self, model: LoadedModel, texts: list[str], length: int) -> list[list[int]]:
        most = min(length, model.max_length or 2**31)
        ids = model.tokenizer(texts, truncation=True, max_length=most, verbose=False)["input_ids"]
        return [list(row) or [pad_token(model)] for row in ids]

    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        """Return the calibration rows' tokens, truncated and shuffled, see :class:`Task`."""
        texts = [row.text for row in self.rows["calibration"]]
        random.Random(seed).shuffle(texts)
        return self._tokenize(model, texts[:MAX_HEAD_ROWS], sequence_length)

    def _prediction_logits(self, batch: Batch, logits: Tensor) -> list[Tensor]:
        return list(logits[:, None])

    def _columns(self, batch: Batch, logits: Tensor, dense: list[Tensor] | None) -> dict[str, Any]:
        labels = torch.tensor([example.label for example in batch.examples])
        scores = score(
            logits, labels.to(logits.device), None if dense is None else torch.cat(dense)
        )
        return {
            "loss": scores.loss.numpy(),
            "n_predictions": np.ones(len(labels)),
            "kl": scores.kl.numpy(),
            "label": labels.numpy(),
            "prediction": scores.prediction.numpy(),
            "confidence": scores.confidence.numpy(),
            **_doubts(logits),
        }

    def _own_arguments(self, outcomes: Outcomes) -> tuple[Any, ...]:
        """Return labels and predictions as the user wrote them."""
        names = self._names()
        labels = np.asarray(outcomes["label"], dtype=np.int64)
        known = np.minimum(np.asarray(outcomes["prediction"], dtype=np.int64), len(self.labels))
        return names[labels], names[known]

    def _names(self) -> NDArray[Any]:
        """Return what a code stands for; the last entry is a class that is no label here."""
        if all(_PLAIN_INTEGER.fullmatch(name) for name in self.labels):
            return np.array([*(int(name) for name in self.labels), -1])
        return np.array([*self.labels, "(other)"])

    def _rows(self) -> Iterable[dict[str, Any]]:
        for part in PARTS:
            for row in self.rows[part]:
                found = {"part": part, **dataclasses.asdict(row)}
                if not row.more:  # as it was before there were such columns
                    del found["more"]
                yield found

    def save(self, folder: Path) -> dict[str, Any]:
        """Write a snapshot of the rows and return what :meth:`load` needs."""
        return {
            **super().save(folder),
            "labels": list(self.labels),
        }

    @classmethod
    def load(cls, saved: dict[str, Any], folder: Path) -> TextClassification:
        """Return the task that :meth:`save` wrote, see :class:`Task`."""
        parts: dict[str, list[Row]] = {part: [] for part in PARTS}
        for row in read_snapshot(within(folder, saved["data"])):
            more = tuple((str(name), str(value)) for name, value in row.pop("more", ()))
            parts[row.pop("part")].append(Row(**row, more=more))
        options = dict(saved["options"])
        metric = find_metric(saved)
        options.pop("metric", None)
        higher = options.pop("higher_is_better", None)
        task = cls.__new__(cls)
        rows = {part: tuple(found) for part, found in parts.items()}
        task._set(rows, saved["name"], options, metric, higher, saved.get("labels"))
        task._check_loaded(saved)
        if "labels" not in saved and were_unordered(task.labels):
            task.warnings = (*task.warnings, UNORDERED)
        return task


def label_logits(
    labels: tuple[str, ...],
    model: LoadedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor | None:
    """Return a bound model's logits of shape (examples, classes), these labels first.

    None where the model has no head for them.
    """
    columns = columns_for(labels, model)
    if columns is None:
        return None
    if model.head is not None:
        # a head on mean-pooled features, in the place of any that the class has
        features = pooled_features(model, input_ids, attention_mask)
        weight, bias = (t.to(features.device) for t in (model.head.weight, model.head.bias))
        logits = features @ weight.T + bias
    else:
        logits = own_head_logits(model, input_ids, attention_mask)
    return logits if columns == sorted(columns) else logits[:, columns]


def _doubts(logits: Tensor) -> dict[str, Any]:
    """Return what else tells how sure the model is: margin, entropy, and all probabilities."""
    logs = log_probabilities(logits)
    best = logs.topk(min(2, logs.shape[-1]), -1).values.exp()
    found = {
        "margin": (best[:, 0] - best[:, -1]).cpu().double().numpy(),
        "entropy": -(logs.exp() * logs.clamp(min=-1e4)).sum(-1).cpu().double().numpy(),
    }
    if logs.shape[-1] <= MAX_KEPT_CLASSES:
        found["log_probabilities"] = logs.clamp(min=-6e4).half().cpu().numpy()
    return found


def _complete(
    given: dict[str, list[Row]], pool: list[Row], label: str, seed: int
) -> dict[str, tuple[Row, ...]]:
    """Return all three parts: those given, and the others split from the pool by label."""
    missing = {part: share for part, share in SHARES.items() if part not in given}
    if not pool and set(missing) == {"validation"}:
        pool = given.pop("calibration")
        missing = {part: SHARES[part] for part in ("calibration", "validation")}
    if missing and not pool:
        raise DataError(
            f"No rows are given for the part{'s' * (len(missing) > 1)} {', '.join(missing)}; give"
            " a table to split, or every part by name: calibration=, evaluation= and, if you"
            " like, validation=."
        )
    _check(pool + [row for rows in given.values() for row in rows], label)
    if not missing:
        parts = {**given, "calibration": given["calibration"] + pool}
    else:
        dealt = _split(pool, missing, seed)
        parts = given | {part: [pool[i] for i in chosen] for part, chosen in dealt.items()}
    for part in PARTS:
        if not parts[part]:
            raise DataError(
                f"{len(pool)} rows are too few to split into {', '.join(missing)}: none is left"
                f" for {part}. Give more rows, or fewer rows per document."
            )
    if len({row.label for row in parts["calibration"]}) < 2:
        raise DataError(
            "All rows of the calibration part have one label, so there is nothing to learn from"
            " them; give rows of at least two labels."
        )
    return {part: tuple(parts[part]) for part in PARTS}


def _check(rows: list[Row], label: str) -> None:
    counts = Counter(row.label for row in rows)
    if len(rows) < LEAST_ROWS:
        raise DataError(
            f"{len(rows)} labelled rows are too few to train and judge a classifier; give at least"
            f" {LEAST_ROWS}, and some hundred for useful results."
        )
    if len(counts) < 2:
        raise DataError(
            f"All {len(rows)} rows have the label {next(iter(counts))!r}; classification needs at"
            f" least two labels. Is {label!r} the right column?"
        )
    if len(counts) > len(rows) / 2:
        raise DataError(
            f"The column {label!r} has {len(counts):,} different values in {len(rows):,} rows, so"
            " it looks like text or numbers, not labels. Name the label column with label=…"
        )


def _split(rows: list[Row], shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Deal rows out by label, or whole documents where rows belong together."""
    grouped: dict[str, list[int]] = {}
    together = any(row.document for row in rows)
    for position, row in enumerate(rows):
        grouped.setdefault(row.document if together else row.label, []).append(position)
    dealt: dict[str, list[int]] = {part: [] for part in shares}
    if together:
        documents = list(grouped.values())
        for part, chosen in deal([len(d) for d in documents], shares, seed).items():
            dealt[part] = sorted(position for i in chosen for position in documents[i])
        return dealt
    for positions in grouped.values():
        for part, chosen in deal([1] * len(positions), shares, seed).items():
            dealt[part] += [positions[i] for i in chosen]
    return {part: sorted(positions) for part, positions in dealt.items()}
