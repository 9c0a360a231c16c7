"""Tasks whose answers a model writes: prompts with examples, targets, greedy decoding."""

from __future__ import annotations

import dataclasses
import random
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from workbench.errors import ConfigError
from workbench.fields import whole, words
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.records import Metric
from workbench.stored_paths import within
from workbench.tasks.answering import answer_tokens, around_input, plain_tokens
from workbench.tasks.base import (
    MOST_LENGTH,
    DenseReference,
    Example,
    checked_options,
    pad_token,
    some_of,
)
from workbench.tasks.data import Row, read_snapshot
from workbench.tasks.language_modeling import start_token
from workbench.tasks.next_token import NextToken
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.output import Output
from workbench.tasks.parts import Tables
from workbench.tasks.rouge import WORDS, Words, words_of_options
from workbench.tasks.splits import PARTS, complete, document_codes, overlap

STOP = "\n"
"""Where an answer ends; targets are written on one line."""


@dataclass(frozen=True)
class Pair:
    """A text and what is to be written about it; ``document`` is the cluster it belongs to."""

    text: str
    target: str
    document: str


class Generation(NextToken):
    """What tasks of written answers share. Loss and KL are of the target's tokens alone.

    The prompt is the template of ``shots`` examples of the calibration part, with their answers,
    and then of the text; the answer is decoded greedily up to the end of the line, or of the text.
    An encoder-decoder's encoder reads the prompt and its decoder writes the answer. Texts that do
    not fit are cut at their end.
    """

    output = Output.TEXT
    answers_prompts: ClassVar[bool] = True

    def _build(
        self,
        tables: Tables,
        columns: Mapping[str, Any],
        pair: Callable[[Row], Pair],
        name: str | None,
        options: dict[str, Any],
    ) -> None:
        """Read the tables, deal them out over the parts, and say what is doubtful about them."""
        options = self._checked(options)
        name = words(type(self).__name__, "name", name, none_means="that of the file")
        pool, parts = tables.all_rows(**columns)
        pairs = {part: [pair(row) for row in rows] for part, rows in parts.items()}
        self._set(
            complete(pairs, [pair(row) for row in pool], options["seed"]),
            name or tables.name(self.kind),
            {**options, "words": WORDS},
            self._metrics(),
        )
        self.reading = tables.described()
        self._warn(tables.findings() + self.findings())

    def _checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options with their numbers checked."""
        owner = type(self).__name__
        found = checked_options(owner, options)
        found["max_new_tokens"] = whole(
            owner, "max_new_tokens", options["max_new_tokens"], minimum=2, maximum=MOST_LENGTH
        )
        found["shots"] = whole(owner, "shots", options["shots"], minimum=0, maximum=32)
        found["template"] = words(owner, "template", options["template"], most=100_000)
        return found

    def _set(
        self,
        rows: Mapping[str, Sequence[Pair]],
        name: str,
        options: dict[str, Any],
        metrics: tuple[Metric, ...],
    ) -> None:
        options = self._checked(options)
        if options["max_new_tokens"] >= options["sequence_length"]:
            raise ConfigError(
                f"max_new_tokens={options['max_new_tokens']} leaves no room for a text within"
                f" sequence_length={options['sequence_length']}; give a larger sequence_length."
            )
        if "{text}" not in options["template"]:
            raise ConfigError(
                f"template={options['template']!r} has no {{text}}; give one such as"
                " 'Text: {text}\\nAnswer:'."
            )
        super().__init__(name, metrics, options)
        self.words: Words = words_of_options(options)
        self.rows = {part: tuple(rows[part]) for part in PARTS}
        if options["shots"] > len(self.rows["calibration"]):
            raise ConfigError(
                f"shots={options['shots']} are more than the {len(self.rows['calibration'])} rows"
                " of the calibration part."
            )
        self._documents = document_codes(self.rows)

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {len(self.rows[part])}" for part in PARTS)
        return f"{type(self).__name__}({self.name!r}: rows: {counts})"

    def findings(self) -> list[str]:
        """Return what is doubtful about the data."""
        found = overlap({part: [row.text for row in rows] for part, rows in self.rows.items()})
        if len(self.rows["evaluation"]) < 30:
            found.append(
                f"the evaluation part has only {len(self.rows['evaluation'])} rows, so scores are"
                " known only roughly; give more rows."
            )
        return found

    def text_lengths(self, model: LoadedModel) -> list[int]:
        """Return how many tokens prompts and answers would have if none were cut."""
        rows = some_of([row for part in PARTS for row in self.rows[part]], 1000)
        if not rows:
            return []
        most = self.options["max_new_tokens"]
        prompt, _ = self._pieces(model, dataclasses.replace(rows[0], text=""), 2**31)
        around = len(prompt) + most
        texts = model.tokenizer(
            [row.text for row in rows], add_special_tokens=False, truncation=False, verbose=False
        )["input_ids"]
        return [around + len(ids) for ids in texts]

    @abstractmethod
    def scores(self, answer: str, target: str) -> dict[str, float]:
        """Return what is recorded of an answer: a number per name of an outcome column."""

    def prompt(self, text: str) -> str:
        """Return what the model reads before it writes the answer to a text."""
        chosen = self._shots()
        return "".join(self._shot(row) for row in chosen) + self._filled(text)

    def _shots(self) -> list[Pair]:
        rows = list(self.rows["calibration"])
        return random.Random(self.options["seed"]).sample(rows, self.options["shots"])

    def _shot(self, row: Pair) -> str:
        return f"{self._filled(row.text)} {row.target}{STOP}{STOP}"

    def _filled(self, text: str) -> str:
        return str(self.options["template"]).replace("{text}", text)

    def _pieces(self, model: LoadedModel, row: Pair, length: int) -> tuple[list[int], list[int]]:
        """Return the tokens of the prompt and of the target, together at most ``length``."""
        head, tail = str(self.options["template"]).split("{text}", 1)
        shots = "".join(self._shot(one) for one in self._shots())
        before, after = plain_tokens(model, shots + head), plain_tokens(model, tail)
        if model.is_encoder_decoder:
            start, end = around_input(model)
            before, after = start + before, after + end
            target = answer_tokens(model, row.target)
        else:
            before = start_token(model) + before
            target = plain_tokens(model, f" {row.target}{STOP}")
        target = target[: self.options["max_new_tokens"]]
        room = length - len(before) - len(after) - self.options["max_new_tokens"]
        if room < 1:
            raise ConfigError(
                f"The prompt of {self.name!r} takes {len(before) + len(after)} tokens without its"
                f" text, and the answer {self.options['max_new_tokens']}; {length} are allowed."
                " Give fewer shots, or a larger sequence_length."
            )
        return before + plain_tokens(model, row.text)[:room] + after, target

    def _make_examples(self, model: LoadedModel, part: str, length: int) -> list[Example]:
        rows = list(enumerate(self.rows[part]))
        most = self.options["max_evaluation_examples"] if part == "evaluation" else None
        if most is not None and most < len(rows):
            chosen = random.Random(self.options["seed"]).sample(rows, most)
            rows = sorted(chosen, key=lambda row: row[0])
        found: list[Example] = []
        for index, row in rows:
            prompt, target = self._pieces(model, row, length)
            document = self._documents[part][index]
            found.append(Example(index, document, prompt + target, n_given=len(prompt)))
        return found

    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        """Return the calibration rows' prompts with their targets, cut and shuffled."""
        pieces = self._calibration_pieces(model, seed)
        return [(prompt + target)[-sequence_length:] for prompt, target in pieces]

    def calibration_examples(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[Example]:
        """Return the calibration windows; for an encoder-decoder, what of them is given.

        Each side is cut to ``sequence_length``, which a decoder reads together.
        """
        if not model.is_encoder_decoder:
            return super().calibration_examples(model, sequence_length=sequence_length, seed=seed)
        return [
            Example(index, index, given + target[:sequence_length], n_given=len(given))
            for index, (prompt, target) in enumerate(self._calibration_pieces(model, seed))
            for given in [prompt[-sequence_length:]]
        ]

    def _calibration_pieces(
        self, model: LoadedModel, seed: int
    ) -> list[tuple[list[int], list[int]]]:
        most = min(self.options["sequence_length"], model.max_length or 2**31)
        rows = list(self.rows["calibration"])
        random.Random(seed).shuffle(rows)
        return [self._pieces(model, row, most) for row in rows]

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
        """Score the targets, then let the model write its answers and score those.

        See :meth:`Task.evaluate`. The outcomes have a column ``answer`` of text, too.
        """
        scored = super().evaluate(
            model,
            part,
            reference=reference,
            batch_size=batch_size,
            limit=limit,
            monitor=monitor,
        )
        answers = self.answers(model, part, batch_size=batch_size, limit=limit, monitor=monitor)
        targets = [self.rows[part][i].target for i in np.asarray(scored["example"])]
        points = [self.scores(a, t) for a, t in zip(answers, targets, strict=True)]
        extra = {name: np.array([point[name] for point in points]) for name in points[0]}
        return Outcomes({**scored.columns, **extra, "answer": np.array(answers, dtype=str)})

    def answers(
        self,
        model: LoadedModel,
        part: str = "evaluation",
        *,
        batch_size: int | None = None,
        limit: int | None = None,
        monitor: Monitor = SILENT,
    ) -> list[str]:
        """Return what a model writes for every example of a part, in their order.

        Parameters
        ----------
        model : LoadedModel
            Bound to the task; not changed.
        part : {"evaluation", "validation", "calibration"}
        batch_size, limit : int, optional
            See :meth:`Task.batches`.
        monitor : Monitor
            Told after every batch, stage ``"generate"``; may cancel there.
        """
        pad, found = pad_token(model), dict[int, str]()
        rows = (row for part_rows in self.rows.values() for row in part_rows)
        may_be_empty = self.options["shots"] > 0 or any(not row.target for row in rows)
        batches = self.batches(model, part, batch_size=batch_size, limit=limit)
        for done, batch in enumerate(batches, 1):
            prompts = [e.tokens[: e.n_given] for e in batch.examples]
            width = max(map(len, prompts))
            ids = torch.full((len(prompts), width), pad, dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for row, prompt in enumerate(prompts):
                # A decoder goes on at the right; an encoder's positions begin at the left.
                first = 0 if model.is_encoder_decoder else width - len(prompt)
                ids[row, first : first + len(prompt)] = torch.tensor(prompt)
                mask[row, first : first + len(prompt)] = 1
            written = model.write(
                ids.to(model.device),
                mask.to(model.device),
                max_new_tokens=self.options["max_new_tokens"],
            )
            for example, row in zip(batch.examples, written.tolist(), strict=True):
                text = str(model.tokenizer.decode(row, skip_special_tokens=True))
                found[example.index] = answer_in(text, may_be_empty=may_be_empty)
            monitor.report("generate", done, len(batches), part)
        return [found[index] for index in sorted(found)]

    def _rows(self) -> Iterable[dict[str, Any]]:
        for part in PARTS:
            for row in self.rows[part]:
                yield {"part": part, **dataclasses.asdict(row)}

    @classmethod
    def load(cls, saved: dict[str, Any], folder: Path) -> Generation:
        """Return the task that :meth:`save` wrote, see :class:`Task`."""
        parts: dict[str, list[Pair]] = {part: [] for part in PARTS}
        for row in read_snapshot(within(folder, saved["data"])):
            parts[row.pop("part")].append(Pair(**row))
        task = cls.__new__(cls)
        task._set(parts, saved["name"], dict(saved["options"]), task._metrics())
        task._check_loaded(saved)
        return task

    @abstractmethod
    def _metrics(self) -> tuple[Metric, ...]:
        """Return the task's metrics, ``kl`` last."""


def answer_in(written: str, *, may_be_empty: bool) -> str:
    """Return the line that a model wrote as its answer.

    An empty line is an answer where targets may be empty, and after solved examples, where what
    follows it is the model's own next example; elsewhere a model may begin with empty lines.
    """
    return (written if may_be_empty else written.lstrip()).split(STOP, 1)[0].strip()


def one_line(text: str) -> str:
    """Return a text on one line with single spaces."""
    return " ".join(text.split())
