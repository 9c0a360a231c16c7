"""Language modelling on the user's own texts: perplexity, bits per byte, next-token accuracy."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from workbench.errors import DataError
from workbench.models.load import LoadedModel
from workbench.stored_paths import within
from workbench.tasks.base import Example, checked_name, checked_options
from workbench.tasks.data import read_snapshot, read_texts
from workbench.tasks.metric import describe_metric, find_metric
from workbench.tasks.metrics import ACCURACY, BITS_PER_BYTE, KL, PERPLEXITY
from workbench.tasks.next_token import NextToken
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.splits import PARTS, Document, cut_documents, deal, overlap

SHARES = {"calibration": 0.4, "validation": 0.2, "evaluation": 0.4}
"""Share of the characters that each part gets where parts are split, not given."""

MAX_CALIBRATION_WINDOWS = 4096
"""Most calibration windows that are made of one task; far more than any solver uses."""

MAX_TRAINING_WINDOWS = 65_536
"""Most windows that one epoch of training reads."""


class LanguageModeling(NextToken):
    """Predict the next token of the user's texts.

    Every file or string is a document. Where there are fewer than twelve, WikiText's articles
    become documents, and long texts are cut at blank lines into blocks of about 4,000 characters,
    because errors are clustered by document and parts are split by document.

    Parameters
    ----------
    source : str, Path or iterable of them, optional
        Text files, folders or strings. A string that names an existing file is read; a string
        that only looks like a path is an error, never text.
    calibration, validation, evaluation : like ``source``, optional
        Parts given explicitly; those not given are split from ``source`` (40, 20 and 40 % of the
        characters) or, without a source, validation is split from calibration.
    sequence_length : int
        Tokens per window, capped at what the model takes.
    max_evaluation_tokens : int or None
        The evaluated windows are taken evenly over documents until they hold so many tokens;
        None takes all.
    seed : int
        Of the split into parts and of the choice of windows.
    metric : callable, optional
        Your own metric: called with an :class:`~workbench.tasks.outcomes.Outcomes` table (columns
        ``loss``, ``n_predictions``, ``n_correct``, ``n_bytes``, ``document``), returns a float,
        whose standard error comes from a jackknife over documents, or one number per window, of
        which it is the mean. It becomes the primary metric.
    higher_is_better : bool, optional
        Of your own metric, where it has no attribute of that name; one of the two is needed.
    name : str, optional
        For tables and plots.
    encoding : str, optional
        Of the files; by default each one's is detected, and a guess is said.

    Raises
    ------
    DataError
        If a path does not exist, a file is empty or not text, or there is too little text.

    Examples
    --------
    >>> task = LanguageModeling(["A text. " * 200, "Other words. " * 200, "More. " * 300])
    >>> [metric.name for metric in task.metrics]
    ['perplexity', 'bits_per_byte', 'accuracy', 'kl']
    """

    kind: ClassVar[str] = "language_modeling"

    def __init__(
        self,
        source: Any = None,
        *,
        calibration: Any = None,
        validation: Any = None,
        evaluation: Any = None,
        sequence_length: int = 256,
        max_evaluation_tokens: int | None = 28_000,
        seed: int = 0,
        metric: Callable[[Outcomes], float] | None = None,
        higher_is_better: bool | None = None,
        name: str | None = None,
        encoding: str | None = None,
    ) -> None:
        options = checked_options(
            type(self).__name__,
            {
                "sequence_length": sequence_length,
                "max_evaluation_tokens": max_evaluation_tokens,
                "seed": seed,
            },
        )
        name = checked_name(type(self).__name__, name, encoding, higher_is_better)
        given = {"calibration": calibration, "validation": validation, "evaluation": evaluation}
        notes: list[str] = []
        texts = {
            part: cut_documents(read_texts(value, encoding, notes))
            for part, value in given.items()
            if value is not None
        }
        pool = cut_documents(read_texts(source, encoding, notes)) if source is not None else []
        parts = _complete(texts, pool, options["seed"])
        self._set(
            _number(parts),
            name or _default_name(source if source is not None else evaluation),
            options,
            metric,
            higher_is_better,
        )
        self._warn(notes + _findings(self.documents))

    @classmethod
    def from_documents(
        cls,
        parts: Mapping[str, Sequence[tuple[str, str]]],
        *,
        name: str,
        sequence_length: int = 256,
        max_evaluation_tokens: int | None = 28_000,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> LanguageModeling:
        """Return a task of documents that are already in parts; they are not cut again.

        Parameters
        ----------
        parts : mapping of part to sequence of (name, text)
            The documents of each part.
        name : str
            For tables and plots.
        sequence_length, max_evaluation_tokens, seed
            As for the class.
        options : mapping, optional
            JSON-ready entries that count into the fingerprint.
        """
        task = cls.__new__(cls)
        values = {
            "sequence_length": sequence_length,
            "max_evaluation_tokens": max_evaluation_tokens,
            "seed": seed,
            **(options or {}),
        }
        task._set(_number(parts), name, values, None, None)
        task._warn(_findings(task.documents))
        return task

    def _set(
        self,
        documents: dict[str, tuple[Document, ...]],
        name: str,
        options: dict[str, Any],
        metric: Callable[[Outcomes], float] | None,
        higher_is_better: bool | None,
    ) -> None:
        options = checked_options(type(self).__name__, options)
        super().__init__(name, (PERPLEXITY, BITS_PER_BYTE, ACCURACY, KL), options)
        self.documents = documents
        self._own_metric = metric
        if metric is not None:
            own = describe_metric(metric, higher_is_better, tuple(m.name for m in self.metrics))
            self.metrics = (own, *self.metrics)
            self.options |= {"metric": own.name, "higher_is_better": own.higher_is_better}

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {len(self.documents[part])}" for part in PARTS)
        return f"LanguageModeling({self.name!r}: documents: {counts})"

    def _make_examples(self, model: LoadedModel, part: str, length: int) -> list[Example]:
        """Return windows of at most ``length`` tokens.

        Each window begins with the tokenizer's BOS (else EOS) token where there is one, so that
        its first token of text is predicted too. The last window of a document may be short.
        ``n_bytes`` are the UTF-8 bytes of the text from the first predicted token up to the next
        window, so that the windows of a document cover it without gaps.
        """
        most = self.options["max_evaluation_tokens"]
        start = start_token(model)
        documents = list(self.documents[part])
        random.Random(self.options["seed"]).shuffle(documents)
        if most is not None:
            documents = _enough(documents, most)
        per_document = [_document_windows(model, document, length, start) for document in documents]
        total = sum(len(w.tokens) for windows in per_document for w in windows)
        if most is not None and total > most:
            per_document = _take_evenly(per_document, most, random.Random(self.options["seed"]))
        chosen = sorted(
            (w for windows in per_document for w in windows), key=lambda w: (w.document, w.index)
        )
        return [
            Example(index, w.document, w.tokens, n_bytes=w.n_bytes)
            for index, w in enumerate(chosen)
        ]

    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        """Return packed windows of exactly ``sequence_length`` tokens, see :class:`Task`.

        The calibration documents are shuffled, joined with the tokenizer's EOS (or BOS) token
        before each, cut, and shuffled again; a rest shorter than a window is dropped, unless it is
        all there is. At most 4,096 windows are made.
        """
        return self._packed(model, sequence_length, seed, MAX_CALIBRATION_WINDOWS)

    def training_examples(self, model: LoadedModel) -> list[Example]:
        """Return packed windows of ``sequence_length`` tokens of the calibration part.

        At most 65,536 windows are made; ``document`` is no cluster here, it is the index.
        """
        length = min(self.options["sequence_length"], model.max_length or 2**31)
        windows = self._packed(model, length, self.options["seed"], MAX_TRAINING_WINDOWS)
        return [Example(index, index, tokens) for index, tokens in enumerate(windows)]

    def _packed(
        self, model: LoadedModel, sequence_length: int, seed: int, most: int
    ) -> list[list[int]]:
        """Return at most so many windows of the calibration documents, joined and cut."""
        generator = random.Random(seed)
        documents = list(self.documents["calibration"])
        generator.shuffle(documents)
        start = start_token(model)
        stream: list[int] = []
        for document in documents:
            stream += start + _tokenize(model, document.text)[0]
            if len(stream) >= most * sequence_length:
                break
        count = min(len(stream) // sequence_length, most)
        windows = [stream[i * sequence_length : (i + 1) * sequence_length] for i in range(count)]
        windows = windows or [stream]
        generator.shuffle(windows)
        return windows

    def _rows(self) -> Iterable[dict[str, Any]]:
        for part in PARTS:
            for document in self.documents[part]:
                yield {"part": part, "name": document.name, "text": document.text}

    @classmethod
    def load(cls, saved: dict[str, Any], folder: Path) -> LanguageModeling:
        """Return the task that :meth:`save` wrote, see :class:`Task`."""
        parts: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}
        for row in read_snapshot(within(folder, saved["data"])):
            parts[row["part"]].append((row["name"], row["text"]))
        options = dict(saved["options"])
        task = cls.__new__(cls)
        metric = find_metric(saved)
        options.pop("metric", None)
        higher = options.pop("higher_is_better", None)
        task._set(_number(parts), saved["name"], options, metric, higher)
        task._check_loaded(saved)
        return task


def start_token(model: LoadedModel) -> list[int]:
    """Return the token that begins a window: BOS, else EOS, else none; a list of 0 or 1 ids."""
    for token in (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id):
        if token is not None:
            return [int(token)]
    return []


def _tokenize(model: LoadedModel, text: str) -> tuple[list[int], list[int] | None]:
    """Return token ids and where each begins in the text (None if the tokenizer cannot tell)."""
    tokenizer = model.tokenizer
    with_offsets = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=with_offsets, verbose=False
    )
    offsets = [begin for begin, _ in encoded["offset_mapping"]] if with_offsets else None
    return list(encoded["input_ids"]), offsets


def _document_windows(
    model: LoadedModel, document: Document, length: int, start: list[int]
) -> list[Example]:
    """Return a document's windows; a window with nothing to predict is left out."""
    tokens, offsets = _tokenize(model, document.text)
    step = length - len(start)
    windows = []
    for number, begin in enumerate(range(0, len(tokens), step)):
        end = min(begin + step, len(tokens))
        first = begin if start else begin + 1  # the first token that is predicted
        if first >= end:
            continue
        if offsets is None:
            text = str(model.tokenizer.decode(tokens[first:end]))
        else:
            text = document.text[
                0 if first == 0 else offsets[first] : offsets[end] if end < len(tokens) else None
            ]
        windows.append(
            Example(
                number,
                document.index,
                start + tokens[begin:end],
                n_bytes=len(text.encode("utf-8", "surrogatepass")),
            )
        )
    return windows


def _enough(documents: list[Document], tokens: int) -> list[Document]:
    """Return the first documents that surely hold so many tokens, so that not all are tokenised.

    At least 64 documents are returned unless they are very long.
    """
    total = 0
    for count, document in enumerate(documents, 1):
        total += len(document.text)
        if total >= 12 * tokens and (count >= 64 or total >= 60 * tokens):
            return documents[:count]
    return documents


def _take_evenly(
    per_document: list[list[Example]], most: int, generator: random.Random
) -> list[list[Example]]:
    """Take windows in rounds, one of every document per round, until they hold ``most`` tokens."""
    queues = [generator.sample(windows, len(windows)) for windows in per_document]
    taken: list[list[Example]] = [[] for _ in queues]
    total = 0
    while total < most and any(queues):
        for queue, chosen in zip(queues, taken, strict=True):
            if queue and total < most:
                window = queue.pop()
                chosen.append(window)
                total += len(window.tokens)
    return taken


def _complete(
    given: dict[str, list[tuple[str, str]]], pool: list[tuple[str, str]], seed: int
) -> dict[str, list[tuple[str, str]]]:
    """Return all three parts: those given, and the others split from the pool by seed."""
    missing = {part: share for part, share in SHARES.items() if part not in given}
    if not pool and set(missing) == {"validation"}:
        pool = given.pop("calibration")
        missing = {part: SHARES[part] for part in ("calibration", "validation")}
    if not missing:
        return {**given, "calibration": given["calibration"] + pool}
    if not pool:
        raise DataError(
            f"No text is given for the part{'s' * (len(missing) > 1)} {', '.join(missing)}; give"
            " a text file or strings to split, or every part by name: calibration=, evaluation="
            " and, if you like, validation=."
        )
    if len(pool) < len(missing):
        size = sum(len(text) for _, text in pool)
        raise DataError(
            f"The text given has {size:,} characters in {len(pool)} document(s), too little to"
            f" split into {', '.join(missing)}; give at least a few thousand characters."
        )
    dealt = deal([len(text) for _, text in pool], missing, seed)
    return given | {part: [pool[i] for i in chosen] for part, chosen in dealt.items()}


def _number(
    parts: Mapping[str, Sequence[tuple[str, str]]],
) -> dict[str, tuple[Document, ...]]:
    numbered: dict[str, tuple[Document, ...]] = {}
    index = 0
    for part in PARTS:
        documents = []
        for name, text in parts.get(part, ()):
            documents.append(Document(index, name, text))
            index += 1
        numbered[part] = tuple(documents)
    return numbered


def _findings(documents: Mapping[str, Sequence[Document]]) -> list[str]:
    findings = overlap({part: [d.text for d in docs] for part, docs in documents.items()})
    count = len(documents["evaluation"])
    if count < 5:
        findings.append(
            f"the evaluation part has only {count} document{'s' * (count != 1)}, so standard"
            " errors are rough or missing; give more texts, or longer ones."
        )
    return findings


def _default_name(source: Any) -> str:
    items = [source] if isinstance(source, (str, Path)) else list(source)
    first = items[0] if items else ""
    short = isinstance(first, Path) or (len(first) < 1000 and "\n" not in first)
    stem = Path(first).stem if short and Path(first).suffix else "texts"
    return stem if len(items) == 1 else f"{stem} and {len(items) - 1} more"
