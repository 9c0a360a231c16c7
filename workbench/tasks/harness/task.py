"""Tasks of EleutherAI's lm-evaluation-harness: its documents, prompts and metrics."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from workbench.errors import (
    CalibrationError,
    ConfigError,
    DataError,
    UnsupportedArchitectureError,
)
from workbench.fields import flag, whole, words
from workbench.fields import seed as check_seed
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.records import Metric
from workbench.stored_paths import within
from workbench.tasks.base import MOST_LENGTH, Batch, DenseReference, Example
from workbench.tasks.data import read_snapshot
from workbench.tasks.harness.configs import find_config
from workbench.tasks.harness.description import (
    digest,
    generation,
    given_rows,
    labels,
    ordered,
    plain,
)
from workbench.tasks.harness.documents import HarnessRow, read_documents
from workbench.tasks.harness.encoding import Encoder
from workbench.tasks.harness.generation import write_answers
from workbench.tasks.harness.library import harness_version
from workbench.tasks.harness.questions import Question, ask_others, question_of, scored
from workbench.tasks.harness.replay import Recorded
from workbench.tasks.harness.scores import (
    CHOICE_RULES,
    Score,
    aggregation,
    choice_columns,
    choice_score,
    is_scored_here,
    item_columns,
    items_of,
    scores_of,
)
from workbench.tasks.harness.trusted_code import revived
from workbench.tasks.metrics import KL, OfRows
from workbench.tasks.next_token import NextToken
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.output import HARNESS, Output
from workbench.tasks.splits import PARTS, overlap

WHOLE = 2**31 - 1
"""``sequence_length`` where requests are as long as the model takes."""

FEWSHOT_SEED = 1234
"""The harness's own: with it the solved examples are the same."""


class HarnessTask(NextToken):
    """A task of the lm-evaluation-harness, with outcomes per document. Needs the extra ``lm-eval``.

    The evaluation part is the harness's: the test split, else the validation split, all of it, with
    its prompts and metrics, so that the numbers are those of ``lm_eval.simple_evaluate``. Training
    and validation splits are the calibration and validation part; evaluated documents never are.
    ``loss``, ``kl`` and what training learns are of the right answer's tokens.

    In multiple choice the answer is the one that the first metric (``acc``, ``acc_norm``, …)
    counts, and its probabilities are a softmax over what that metric compares, so that flips,
    calibration and cascades work as for a classifier.

    Parameters
    ----------
    task : str or Path
        A name, such as ``"arc_easy"`` or ``"lm-eval:arc_easy"``, or the path of a task file
        (.yaml) of your own. ``dataset_path: json`` or ``csv`` with local ``data_files`` needs no
        network; files that are not in the working folder are looked for beside the task file.
    shots : int, optional
        Solved examples before each document, drawn by the harness. Default: the task's own number.
    metric : str, optional
        The task's metric that comes first. Default: the task's first one.
    calibration, validation : str, Path, Task or list of texts, optional
        In place of the task's own splits, and needed by what calibrates or trains where it has
        none: texts, as :class:`~workbench.tasks.LanguageModeling` takes them, or a task, whose
        part of that name is used.
    include_path : str or Path, optional
        A folder with further task files, which are found by their names.
    sequence_length : int, optional
        Most tokens of a request, cut on the left. Default: what the model takes, as in the harness.
    max_evaluation_examples : int, optional
        Evaluate so many documents, taken at random by ``seed``. Default: all, as in the harness.
    seed : int
        Of solved examples and of parts; the harness's own default draws the same examples.
    trust_remote_code : bool
        Import the Python functions that a task file of your own names (``!function``), and metrics
        that are programs of the hub. They can do anything on your computer.
    name : str, optional
        For tables and plots.

    Raises
    ------
    ConfigError
        If the extra is not installed, or the task needs what is not supported or not allowed.
    DataError
        If there is no such task, it is a group of tasks, or its data cannot be loaded.

    Examples
    --------
    >>> task = HarnessTask("arc_easy", shots=2)  # doctest: +SKIP
    >>> study = Study("my-model", task, path="runs/arc")  # doctest: +SKIP
    """

    kind: ClassVar[str] = "lm_eval"

    def __init__(
        self,
        task: str | Path,
        *,
        shots: int | None = None,
        metric: str | None = None,
        calibration: Any = None,
        validation: Any = None,
        include_path: str | Path | None = None,
        sequence_length: int | None = None,
        max_evaluation_examples: int | None = None,
        seed: int = FEWSHOT_SEED,
        trust_remote_code: bool = False,
        name: str | None = None,
    ) -> None:
        owner = type(self).__name__
        sequence_length = whole(
            owner,
            "sequence_length",
            sequence_length,
            minimum=4,
            maximum=MOST_LENGTH,
            unit="tokens",
            none_means="what the model takes",
        )
        most, meaning = max_evaluation_examples, "all documents"
        max_evaluation_examples = whole(owner, "max_evaluation_examples", most, none_means=meaning)
        seed = check_seed(owner, seed)
        name = words(owner, "name", name, none_means="that of the task")
        trust_remote_code = flag(owner, "trust_remote_code", trust_remote_code)
        config = find_config(task, include_path)
        read = read_documents(
            config,
            shots=shots,
            seed=seed,
            trust=trust_remote_code,
            keep_docs=lambda made: not is_scored_here(made, scores_of(made)),
        )
        rows = dict(read.rows)
        splits = dict(read.splits)
        for part, given in (("calibration", calibration), ("validation", validation)):
            if given is not None:
                rows[part], splits[part] = given_rows(given, part), "given"
        scores = ordered(scores_of(read.task), metric, config["task"])
        here = is_scored_here(read.task, scores)
        described = plain(config)
        options: dict[str, Any] = {
            "task": config["task"],
            "output_type": read.task.OUTPUT_TYPE,
            "scores": [dataclasses.asdict(score) for score in scores],
            "shots": read.shots,
            "sequence_length": WHOLE if sequence_length is None else sequence_length,
            "max_evaluation_examples": max_evaluation_examples,
            "seed": seed,
        }
        if read.task.OUTPUT_TYPE == "generate_until":
            options["generation"] = generation(read)
        if not here:
            options["scoring"] = [harness_version(), digest(described)]
        recorded = {
            "version": harness_version(),
            "file": config["!file"],
            "config": described,
            "splits": splits,
        }
        self._set(rows, name or str(config["task"]), options, recorded)
        self._warn([*read.findings, *self.findings()])

    def _set(
        self,
        rows: dict[str, tuple[HarnessRow, ...]],
        name: str,
        options: dict[str, Any],
        recorded: dict[str, Any],
    ) -> None:
        self.scores = tuple(Score(**score) for score in options["scores"])
        super().__init__(name, (*(score.metric for score in self.scores), KL), dict(options))
        self.rows = rows
        self.recorded = recorded
        every = [row for part in PARTS for row in rows[part]]
        self._width = max((len(row.choices) for row in every), default=0)
        self._requests = max((len(row.continuations) for row in every), default=0)
        self.output = HARNESS.get(options["output_type"], Output.TOKENS)
        chosen = self.output is Output.CHOICES
        self.labels = labels(rows["evaluation"], self._width) if chosen else ()
        self._harness: Recorded | None = None

    @property
    def is_validated(self) -> bool:
        """Whether the validation documents, if there are some, are scored as the evaluated are."""
        rows = self.rows["validation"]
        if "scoring" in self.options and any(row.doc is None for row in rows):
            return False
        return not self.output.classifies or all(row.choices for row in rows)

    @property
    def is_text(self) -> bool:
        """Whether the documents are plain texts, of which every token is predicted."""
        return bool(self.options["output_type"] == "loglikelihood_rolling")

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {len(self.rows[part])}" for part in PARTS)
        shots = f", shots={self.options['shots']}" if self.options["shots"] else ""
        return f"HarnessTask({self.name!r}{shots}: documents: {counts})"

    def findings(self) -> list[str]:
        """Return what is doubtful about the data."""
        found = overlap({part: [row.text for row in rows] for part, rows in self.rows.items()})
        count = len(self.rows["evaluation"])
        if count < 30 and not self.is_text:
            found.append(
                f"the evaluation part has only {count} document{'s' * (count != 1)}, so scores are"
                " known only roughly."
            )
        wrong = sum(not row.golds for row in self.rows["evaluation"])
        if wrong and self.output.classifies and "scoring" not in self.options:
            found.append(
                f"{wrong:,} of {count:,} evaluated documents have no right answer among their"
                " choices, so every answer counts as wrong there; the splits of some data sets"
                " have no labels: test_split says which one is evaluated."
            )
        if not self.rows["calibration"]:
            found.append(f"the task has no documents to calibrate with. {self._what_to_give()}")
        return found

    def _what_to_give(self, part: str = "calibration") -> str:
        return (
            f"All its documents are evaluated, and those are not used for anything else: give"
            f' {part}=, such as {part}="texts.txt" or {part}=HarnessTask("another_task").'
        )

    def bind(self, model: LoadedModel, *, monitor: Monitor = SILENT) -> LoadedModel:
        """Return the model itself after checking that it is a decoder.

        Raises
        ------
        UnsupportedArchitectureError
            If it is another kind of model.
        """
        if model.is_encoder_decoder:
            raise UnsupportedArchitectureError(
                f"{type(model.hf_model).__name__} is an encoder-decoder, and tasks of the harness"
                " are asked of decoder-only models here, such as Llama, Qwen or GPT-2. Use"
                " Extraction, Summarization or PromptAnswers."
            )
        return super().bind(model, monitor=monitor)

    # Examples

    def _make_examples(self, model: LoadedModel, part: str, length: int) -> list[Example]:
        """Return one example per document, or per window of plain text."""
        rows = list(enumerate(self.rows[part]))
        if not rows:
            raise DataError(
                f"The task {self.name!r} has no {part} documents. {self._what_to_give(part)}"
            )
        most = self.options["max_evaluation_examples"] if part == "evaluation" else None
        if most is not None and most < len(rows):
            chosen = random.Random(self.options["seed"]).sample(rows, most)
            rows = sorted(chosen, key=lambda row: row[0])
        encoder = self._encoder(model, part)
        if rows[0][1].contexts:
            return [question_of(encoder, number, row) for number, row in rows]
        windows: list[Example] = []
        for number, row in rows:
            found = encoder.windows(row.continuations[0])
            if part == "evaluation" and not found and row.words:
                found = [([encoder.prefix or 0], 1)]  # nothing is predicted, but a word counted
            for place, (tokens, n_given) in enumerate(found):
                words, size = (0, 0) if place else (row.words, row.bytes)
                windows.append(
                    Question(len(windows), number, tokens, size, n_given=n_given, words=words)
                )
        return windows

    def _encoder(self, model: LoadedModel, part: str) -> Encoder:
        most = None if self.options["sequence_length"] == WHOLE else self.options["sequence_length"]
        if part == "evaluation":  # what is read, all but the last token, fits
            written = self.options["output_type"] == "generate_until"  # then targets only teach
            return Encoder(model, most, whole=not written)
        longest = Encoder(model, most).max_length
        return Encoder(model, longest - 1)  # training reads the last token, too

    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        """Return the calibration documents' prompts with their right answers, cut and shuffled."""
        if not self.rows["calibration"]:
            raise CalibrationError(
                f"The task {self.name!r} has no documents to calibrate with. {self._what_to_give()}"
            )
        encoder = self._encoder(model, "calibration")
        rows = list(self.rows["calibration"])
        random.Random(seed).shuffle(rows)
        windows: list[list[int]] = []
        for row in rows:
            if row.contexts:
                place = row.golds[0] if row.golds else 0
                windows.append(encoder.pair(*row.requests()[place])[0][-sequence_length:])
                continue
            for tokens, _ in encoder.windows(row.continuations[0]):
                windows += [
                    tokens[begin : begin + sequence_length]
                    for begin in range(0, len(tokens), sequence_length)
                ]
        return windows

    # Evaluation

    def logits(self, model: LoadedModel, batch: Batch) -> Tensor:
        """Return next-token logits, in an evaluation of all but the last position.

        It predicts nothing that is asked, and without it requests may be a token longer.
        """
        if batch.part == "evaluation" and batch.input_ids.shape[1] > 1:
            mask = batch.attention_mask
            batch = dataclasses.replace(
                batch,
                input_ids=batch.input_ids[:, :-1],
                attention_mask=None if mask is None else mask[:, :-1],
            )
        return super().logits(model, batch)

    def _columns(self, batch: Batch, logits: Tensor, dense: list[Tensor] | None) -> dict[str, Any]:
        columns = super()._columns(batch, logits, dense)
        if not self.is_text and isinstance(batch.examples[0], Question) and batch.examples[0].ends:
            logs = np.full((len(batch.examples), self._requests), np.nan)
            greedy = np.zeros_like(logs)
            views = self._prediction_logits(batch, logits)
            for place, (example, view) in enumerate(zip(batch.examples, views, strict=True)):
                assert isinstance(example, Question)
                for number, log, is_greedy in scored(
                    example.tokens, example.n_given, example.ends, view
                ):
                    logs[place, number], greedy[place, number] = log, is_greedy
            columns |= {"request_logs": logs, "request_greedy": greedy}
        return columns

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
        """Score the right answers, then all others or what the model writes; see :class:`Task`.

        The outcomes have a column per metric; of written answers also a column ``answer``, of
        multiple choice those of a classifier.
        """
        if "scoring" in self.options and any(row.doc is not None for row in self.rows[part]):
            self._recorded().check()
        scored = super().evaluate(
            model,
            part,
            reference=reference,
            batch_size=batch_size,
            limit=limit,
            monitor=monitor,
        )
        columns = dict(scored.columns)
        if "request_logs" not in columns:
            return Outcomes({**columns, **self._text_columns(model, part, columns)})
        logs = np.array(columns.pop("request_logs"), dtype=np.float64)
        greedy = np.array(columns.pop("request_greedy"), dtype=np.float64) > 0
        questions = [
            example
            for example in self.examples(model, part, limit=limit)
            if isinstance(example, Question)
        ]
        rows = [self.rows[part][example.index] for example in questions]
        if self.options["output_type"] == "generate_until":
            answers = self._answers(model, part, rows, batch_size, monitor)
            columns["answer"] = np.array(answers, dtype=str)
            responses: list[list[Any]] = [[answer] for answer in answers]
        else:
            ask_others(self, model, part, questions, logs, greedy, batch_size, monitor)
            responses = [
                [
                    (float(logs[place, n]), bool(greedy[place, n]))
                    for n in range(len(row.continuations))
                ]
                for place, row in enumerate(rows)
            ]
        if self.output.classifies and all(row.choices for row in rows):
            columns |= choice_columns(rows, logs, self._rule, self._width)
        columns |= self._score_columns(rows, logs, greedy, responses)
        return Outcomes(columns)

    @property
    def _rule(self) -> str:
        first = self.scores[0].source
        return first if first in CHOICE_RULES else "acc"

    def _text_columns(
        self, model: LoadedModel, part: str, columns: dict[str, Any]
    ) -> dict[str, NDArray[Any]]:
        """Return what the metrics of plain text are made of, on each document's windows."""
        if not self.is_text:
            return {}
        if "scoring" in self.options:
            return self._harness_text_columns(part, columns)
        words = {
            example.index: example.words
            for example in self.examples(model, part)
            if isinstance(example, Question)
        }
        n_words = np.array([words[int(index)] for index in columns["example"]], dtype=np.int64)
        found: dict[str, NDArray[Any]] = {"n_words": n_words}
        for score in self.scores:
            found[score.column] = -np.asarray(columns["loss"], dtype=np.float64)
            weight = n_words if score.source == "word_perplexity" else columns["n_bytes"]
            found[score.weight] = np.asarray(weight, dtype=np.int64)
        return found

    def _harness_text_columns(self, part: str, columns: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Return what the harness makes of whole documents, each on its first window."""
        numbers, first, place = np.unique(
            columns["document"], return_index=True, return_inverse=True
        )
        logs = -np.bincount(place, weights=np.asarray(columns["loss"], dtype=np.float64))
        documents = [self.rows[part][number].doc for number in numbers]
        if any(doc is None for doc in documents):  # of another task's part
            return {}
        items = self._recorded().score(
            [doc or {} for doc in documents], [[float(log)] for log in logs], self.scores
        )
        found: dict[str, NDArray[Any]] = {}
        for score in self.scores:
            spread: list[Any] = [None] * len(place)
            for row, item in zip(first, items[score.name], strict=True):
                spread[row] = item
            found |= item_columns(score, spread)
        return found

    def _answers(
        self,
        model: LoadedModel,
        part: str,
        rows: Sequence[HarnessRow],
        batch_size: int | None,
        monitor: Monitor,
    ) -> list[str]:
        asked = self.options["generation"]
        encoder = self._encoder(model, "evaluation")
        if asked["new_tokens"] >= encoder.max_length:
            raise ConfigError(
                f"Answers of {self.name!r} may have {asked['new_tokens']} tokens (max_gen_toks),"
                f" and the model takes {encoder.max_length} with their prompt; give a task file"
                " with fewer, or a model that takes more."
            )
        prompts = [encoder.prompt(row.contexts[0], asked["new_tokens"]) for row in rows]
        if not all(prompts):
            raise DataError(
                f"A document of {self.name!r} has an empty prompt, so a model has nothing to write"
                " after; give its task file another doc_to_text, or a description."
            )
        return write_answers(
            model,
            prompts,
            new_tokens=asked["new_tokens"],
            stops=asked["stops"],
            monitor=monitor,
            detail=part,
            batch_size=batch_size,
        )

    def _score_columns(
        self,
        rows: Sequence[HarnessRow],
        logs: NDArray[np.float64],
        greedy: NDArray[np.bool_],
        responses: Sequence[Sequence[Any]],
    ) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        if "scoring" in self.options:
            if any(row.doc is None for row in rows):  # of another task's part
                return {}
            items = self._recorded().score([row.doc or {} for row in rows], responses, self.scores)
            for score in self.scores:
                found |= item_columns(score, items[score.name])
            return found
        if self.output.classifies and not all(row.choices for row in rows):
            return {}
        for score in self.scores:
            if self.output.classifies:
                values = [
                    choice_score(row, logs[i, : len(row.continuations)], greedy[i], score.source)
                    for i, row in enumerate(rows)
                ]
            else:  # one request: is it what the model would write, or how likely is it
                values = (greedy if score.source == "acc" else logs)[:, 0].astype(float).tolist()
            found[score.column] = np.array(values, dtype=np.float64)
        return found

    def statistic(self, metric: Metric, outcomes: Outcomes) -> OfRows:
        """Return what the harness makes of some documents."""
        score = next((score for score in self.scores if score.name == metric.name), None)
        items = None if score is None else items_of(score, outcomes)
        if score is None or items is None:
            return super().statistic(metric, outcomes)
        return aggregation(score.name, items, self._recorded().aggregate(score))

    def _recorded(self) -> Recorded:
        if self._harness is None:
            docs = (row.doc for row in self.rows["evaluation"] if row.doc is not None)
            self._harness = Recorded(
                revived(self.recorded["config"]), next(docs, {}), self.recorded["version"]
            )
        return self._harness

    # Recording

    def _rows(self) -> Iterable[dict[str, Any]]:
        for part in PARTS:
            for row in self.rows[part]:
                yield {"part": part, **row.to_dict()}

    def save(self, folder: Path) -> dict[str, Any]:
        """Write a snapshot of the documents, and return what :meth:`load` needs.

        It has the harness's version and the task file's content, too.
        """
        return {**super().save(folder), "harness": self.recorded}

    def saved_again(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Return what was saved, the functions of a task file where they lie now.

        Which functions they are is part of the fingerprint, where they lie is not.
        """
        if "scoring" not in self.options:
            return saved
        places = {key: self.recorded[key] for key in ("file", "config")}
        return {**saved, "harness": {**saved["harness"], **places}}

    @classmethod
    def load(cls, saved: dict[str, Any], folder: Path) -> HarnessTask:
        """Return the task that :meth:`save` wrote; the harness and its files are not needed.

        Only what the harness itself scores (written answers, metrics of a task's own) asks for the
        harness when a model is evaluated.
        """
        parts: dict[str, list[HarnessRow]] = {part: [] for part in PARTS}
        for row in read_snapshot(within(folder, saved["data"])):
            parts[row.pop("part")].append(HarnessRow.from_dict(row))
        task = cls.__new__(cls)
        rows = {part: tuple(found) for part, found in parts.items()}
        task._set(rows, saved["name"], dict(saved["options"]), saved["harness"])
        task._check_loaded(saved)
        return task
