"""What tasks of text vectors share: vectors, the anchors they are compared to, and evaluation."""

from __future__ import annotations

import dataclasses
import random
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.fields import texts_given
from workbench.models.architectures import is_seq2seq, refuse_unsupported
from workbench.models.finite import finite_outputs
from workbench.models.load import LoadedModel
from workbench.models.loaded import Anchors
from workbench.models.sentence_encoding import SentenceEncoding, pool, sentence_encoding
from workbench.progress import SILENT, Monitor
from workbench.tasks.base import (
    Batch,
    DenseReference,
    Example,
    Task,
    batches_of,
    pad_token,
    some_of,
)
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.output import Output
from workbench.tasks.scoring import score

SCALE = 20.0
"""What cosines are multiplied by: the inverse temperature of sentence-transformers' losses."""

MOST_ANCHORS = 256
"""Texts of the calibration part that all others are compared to."""

MOST_CALIBRATION_TEXTS = 20_000


class Text(NamedTuple):
    """A text and what it is for (``"query"``, ``"document"``), which decides on its prompt."""

    text: str
    use: str = ""


class TextPair(NamedTuple):
    """Two texts to train on.

    ``score`` says how alike they are; None: they belong together, and so do the first and whatever
    has its index in ``relevant``.
    """

    first: Example
    second: Example
    score: float | None
    relevant: frozenset[int]


class VectorTask(Task):
    """A task that is answered by comparing vectors of texts.

    The logits of a text are its cosines with :data:`MOST_ANCHORS` texts of the calibration part as
    the dense model sees them, times :data:`SCALE`. So ``kl`` says how far a model moves a text
    among others (in nats, and zero where all vectors turn together), calibration weighs errors by
    it, predictions rank by it, and a student learns it from its teacher.

    Pooling, prompts and the longest text are read from the model's own files of
    sentence-transformers; without such files the vector is the mean over the tokens.
    """

    output = Output.VECTORS

    @abstractmethod
    def part_texts(self, part: str) -> Sequence[Text]:
        """Return every text of a part once; an example's index is its place here."""

    @abstractmethod
    def pairs(self, model: LoadedModel, part: str) -> list[TextPair]:
        """Return what fine-tuning learns of a part, tokenised."""

    @abstractmethod
    def _row_texts(self, part: str, limit: int | None) -> tuple[list[int], set[int]]:
        """Return the rows of a part that are scored, and which texts they need."""

    @abstractmethod
    def _scored(
        self,
        part: str,
        rows: list[int],
        place: Mapping[int, int],
        vectors: NDArray[np.float32],
        kl: NDArray[np.float64],
    ) -> dict[str, Any]:
        """Return the columns of the outcomes of rows.

        Parameters
        ----------
        part : str
        rows : list of int
        place : mapping of int to int
            By a text's index, where its vector and KL stand.
        vectors : ndarray of shape (texts, size), float32
            Of unit length.
        kl : ndarray of shape (texts,), float64
        """

    @property
    def dimensions(self) -> int | None:
        """So many first numbers of a vector count; None: all."""
        found: int | None = self.options["dimensions"]
        return found

    def encoding(self, model: LoadedModel) -> SentenceEncoding:
        """Return how the model makes a vector of a text."""
        return sentence_encoding(model.source.name, model.beside)

    def bind(self, model: LoadedModel, *, monitor: Monitor = SILENT) -> LoadedModel:
        """Return a model with the anchors that its vectors and those of its copies are judged by.

        Raises
        ------
        UnsupportedArchitectureError
            If the model is an encoder-decoder, reads no text, or makes its vectors in a way that
            is not known here.
        """
        kind = type(model.hf_model).__name__
        refuse_unsupported(repr(model.source.name), model.hf_model.config, kind)
        if model.is_encoder_decoder and is_seq2seq(kind):
            raise UnsupportedArchitectureError(
                f"{model.source.name!r} ({kind}) is an encoder-decoder, which writes text and makes"
                " no vector of it. Load the encoder alone: load_model(AutoModelForTextEncoding"
                ".from_pretrained(folder), tokenizer)."
            )
        pooling = self.encoding(model).pooling
        known = model.anchors
        if known is not None and (known.task, known.pooling) == (self.fingerprint, pooling):
            return model
        examples = some_of(self.examples(model, "calibration"), MOST_ANCHORS)
        rows = self._encode(model, examples, monitor=monitor)
        vectors = torch.from_numpy(np.stack([rows[e.index] for e in examples]))
        anchors = Anchors(vectors, self.fingerprint, pooling)
        return dataclasses.replace(model, weights=dict(model.weights), anchors=anchors)

    def vectors(self, model: LoadedModel, batch: Batch) -> Tensor:
        """Return the vectors of a batch's texts.

        Returns
        -------
        Tensor of shape (examples, size), float32
            Of unit length. Gradients flow where the caller enables them.
        """
        inputs = batch.to(model.device)
        options = {"use_cache": False} if model.is_decoder else {}
        output = model.hf_model.base_model(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, **options
        )
        pooling = self.encoding(model).pooling
        found = pool(output.last_hidden_state, inputs.attention_mask, pooling)
        return nn.functional.normalize(found[:, : self.dimensions], dim=-1)

    def embed(
        self, model: LoadedModel, texts: Sequence[str], *, use: str = ""
    ) -> NDArray[np.float32]:
        """Return the vectors of texts of your own, in their order.

        Parameters
        ----------
        model : LoadedModel
            Bound to the task.
        texts : sequence of str
        use : str
            What the texts are for, where the model has a prompt for it: ``"query"``,
            ``"document"``.

        Returns
        -------
        ndarray of shape (texts, size), float32
            Of unit length.
        """
        texts = texts_given("embed", "texts", texts)
        tokens = self._tokenize(model, [Text(t, use) for t in texts], self._length(model))
        found = self._encode(model, [Example(i, i, row) for i, row in enumerate(tokens)])
        return np.stack([found[i] for i in range(len(texts))]) if texts else np.zeros((0, 0), "f")

    def _encode(
        self, model: LoadedModel, examples: Sequence[Example], *, monitor: Monitor = SILENT
    ) -> dict[int, NDArray[np.float32]]:
        found: dict[int, NDArray[np.float32]] = {}
        with torch.no_grad(), finite_outputs(model.hf_model):
            for batch in batches_of(model, examples, self.batch_tokens(model)):
                rows = self.vectors(model, batch).cpu().numpy()
                found |= zip((e.index for e in batch.examples), rows, strict=True)
                monitor.report("anchors", len(found), len(examples))
        return found

    def logits(self, model: LoadedModel, batch: Batch) -> Tensor:
        """Return cosines with the anchors times :data:`SCALE`, of shape (examples, anchors)."""
        return self._similarities(model, self.vectors(model, batch))

    def _similarities(self, model: LoadedModel, vectors: Tensor) -> Tensor:
        if model.anchors is None:
            raise ConfigError(
                f"{model.source.name} is not bound to {self.name!r}; use the model that"
                " task.bind(model) returns."
            )
        return SCALE * vectors @ model.anchors.vectors.to(vectors.device).T

    def count_predictions(self, batch: Batch) -> int:
        return len(batch.examples)

    def flat_logits(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits

    def _prediction_logits(self, batch: Batch, logits: Tensor) -> list[Tensor]:
        return list(logits[:, None])

    def targets(self, batch: Batch) -> Tensor:
        """Refuse: texts have no label here.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(
            f"{self.name!r} ({type(self).__name__}) has vectors to compare and no labels to learn."
            " FineTuning learns its pairs, and Distillation(hard_weight=0) what a larger model says"
            " of its texts."
        )

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
        """Make the vectors of all texts, each once, and score the rows; see :meth:`Task.evaluate`.

        ``limit`` counts rows.
        """
        texts = super().evaluate(
            model, part, reference=reference, batch_size=batch_size, limit=limit, monitor=monitor
        )
        rows, _ = self._row_texts(part, limit)
        place = {int(index): row for row, index in enumerate(np.asarray(texts["example"]))}
        columns = {
            "example": np.array(rows, dtype=np.int64),
            "n_predictions": np.ones(len(rows), dtype=np.int64),
            **self._scored(part, rows, place, np.asarray(texts["vector"]), np.asarray(texts["kl"])),
        }
        return Outcomes(columns)

    def _evaluated(self, model: LoadedModel, part: str, limit: int | None) -> list[Example]:
        _, needed = self._row_texts(part, limit)
        return [example for example in self.examples(model, part) if example.index in needed]

    def _score(
        self, model: LoadedModel, batch: Batch, dense: list[Tensor] | None
    ) -> tuple[Tensor, dict[str, Any]]:
        vectors = self.vectors(model, batch)
        logits = self._similarities(model, vectors)
        return logits, {**self._columns(batch, logits, dense), "vector": vectors.cpu().numpy()}

    def _columns(self, batch: Batch, logits: Tensor, dense: list[Tensor] | None) -> dict[str, Any]:
        nowhere = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        scores = score(logits, nowhere, None if dense is None else torch.cat(dense))
        return {"kl": scores.kl.numpy()}

    def _make_examples(self, model: LoadedModel, part: str, length: int) -> list[Example]:
        tokens = self._tokenize(model, self.part_texts(part), length)
        return [Example(index, index, row) for index, row in enumerate(tokens)]

    def _length(self, model: LoadedModel) -> int:
        """Return the most tokens of a text."""
        limits = (model.max_length, self.encoding(model).max_tokens)
        return min([self.options["sequence_length"], *(most for most in limits if most)])

    def _tokenize(self, model: LoadedModel, texts: Sequence[Text], length: int) -> list[list[int]]:
        encoding = self.encoding(model)
        given = [encoding.prompt(t.use) + t.text for t in texts]
        most = min(length, self._length(model))
        ids = model.tokenizer(given, truncation=True, max_length=most, verbose=False)["input_ids"]
        return [list(row) or [pad_token(model)] for row in ids]

    def text_lengths(self, model: LoadedModel) -> list[int]:
        """Return how many tokens texts would have if none were cut, see :class:`Task`."""
        texts = [text.text for text in some_of(self.part_texts("evaluation"))]
        ids = model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]

    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        """Return the calibration texts' tokens, truncated and shuffled, see :class:`Task`."""
        texts = list(self.part_texts("calibration"))
        random.Random(seed).shuffle(texts)
        return self._tokenize(model, texts[:MOST_CALIBRATION_TEXTS], sequence_length)


def unique_texts(texts: Iterable[Text]) -> tuple[list[Text], dict[Text, int]]:
    """Return the texts without repetitions in their order, and the place of each."""
    places: dict[Text, int] = {}
    for text in texts:
        places.setdefault(text, len(places))
    return list(places), places
