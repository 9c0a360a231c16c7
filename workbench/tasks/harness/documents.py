"""The documents of a harness task as requests: contexts, what may follow them, what is right."""

from __future__ import annotations

import glob
import json
import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError, DataError
from workbench.fields import whole
from workbench.tasks.harness.library import harness_at_work, in_words
from workbench.tasks.harness.trusted_code import Code, check_code, replaced
from workbench.tasks.splits import deal

OUTPUT_TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")

MOST_CALIBRATION_ROWS = 10_000
MOST_VALIDATION_ROWS = 2_000

SHARES = {"calibration": 0.8, "validation": 0.2}
"""How the documents beside the evaluated ones are dealt out where they are of one split."""

_LOCAL_READERS = ("json", "csv", "parquet", "text", "arrow")
_REFUSED_READERS = ("pandas",)  # it unpickles
_LOADING = ("datasets", "huggingface_hub", "fsspec", "httpx", "requests", "pyarrow")
"""Packages whose errors are about getting the data."""

_TRANSPARENT = ("until", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_GREEDY = ("do_sample", "temperature", "top_p", "top_k", "num_beams")


@dataclass(frozen=True)
class HarnessRow:
    """One document of a task, ready to be asked.

    Attributes
    ----------
    text : str
        What is asked, without the solved examples before it; for people.
    contexts : tuple of str
        What is given: one for all requests, or one for each. None at all for plain text, of which
        every token is predicted.
    continuations : tuple of str
        What is scored: one per choice (twice as many with unconditional ones), or the target.
    choices : tuple of str
        The answers of multiple choice, as lengths are taken of them; else empty.
    golds : tuple of int
        Which of them are right.
    words, bytes : int
        Of plain text, as the harness counts them.
    doc : dict or None
        The document itself, where the harness scores by it.
    """

    text: str
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    choices: tuple[str, ...] = ()
    golds: tuple[int, ...] = ()
    words: int = 0
    bytes: int = 0
    doc: dict[str, Any] | None = field(default=None, compare=False)

    more: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Further columns to slice by; none."""

    def requests(self) -> list[tuple[str, str]]:
        """Return (context, continuation) of every request."""
        given = self.contexts or ("",)
        return [(given[i] if len(given) > 1 else given[0], c) for i, c in self._numbered()]

    def _numbered(self) -> list[tuple[int, str]]:
        return list(enumerate(self.continuations))

    def to_dict(self) -> dict[str, Any]:
        """Return what a snapshot keeps; what is empty is left out."""
        found = {
            "text": self.text,
            "contexts": list(self.contexts),
            "continuations": list(self.continuations),
            "choices": list(self.choices),
            "golds": list(self.golds),
            "words": self.words,
            "bytes": self.bytes,
            "doc": self.doc,
        }
        return {key: value for key, value in found.items() if value or key == "text"}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> HarnessRow:
        """Return what :meth:`to_dict` described."""
        lists = ("contexts", "continuations", "choices", "golds")
        more = {name: tuple(saved.get(name, ())) for name in lists}
        return cls(
            saved["text"],
            **more,
            words=saved.get("words", 0),
            bytes=saved.get("bytes", 0),
            doc=saved.get("doc"),
        )


@dataclass(frozen=True)
class Reading:
    """What was read of a task: its rows, and how many examples are solved before each."""

    config: dict[str, Any]
    task: Any
    rows: dict[str, tuple[HarnessRow, ...]]
    shots: int
    splits: dict[str, str]
    findings: tuple[str, ...]


def read_documents(
    config: dict[str, Any],
    *,
    shots: int | None,
    seed: int,
    trust: bool,
    keep_docs: Callable[[Any], bool],
) -> Reading:
    """Let the harness load a task's data and write its prompts.

    Parameters
    ----------
    config : dict
        As :func:`~workbench.tasks.harness.configs.find_config` returns it.
    shots : int or None
        Solved examples before each document; None takes the task's own number.
    seed : int
        Of the examples that are drawn, and of the parts where one split becomes two.
    trust : bool
        Whether functions of the user's, and metrics that are programs of the hub, may be run.
    keep_docs : callable
        Says of the harness's task whether its documents are needed for scoring.

    Raises
    ------
    ConfigError
        If the task needs something that is not supported or not allowed.
    DataError
        If its data cannot be loaded, or a document does not fit its templates.
    """
    check_code(config, trust=trust)
    _check_supported(config)
    with harness_at_work():
        task = _build(config, trust)
        count = _shots(task, config, shots)
        task.set_fewshot_seed(seed)
        writer = _Writer(task, count, seed, keep_docs(task))
        evaluated = "test" if task.has_test_docs() else "validation"
        names = {part: task.config[f"{part}_split"] for part in ("training", "validation", "test")}
        rows = {"evaluation": tuple(writer.rows(task.eval_docs, writer.as_the_harness))}
        parts, splits = _other_parts(task, names, names[evaluated], seed)
        for part, docs in parts.items():
            written = tuple(writer.rows(docs, writer.with_other_shots))
            answered = tuple(row for row in written if row.golds or not row.choices)
            rows[part] = answered or written  # there is nothing to learn where no answer is right
    splits["evaluation"] = str(names[evaluated])
    findings = _few_shot_findings(task, names, names[evaluated], count)
    return Reading(config, task, rows, count, splits, findings)


def _check_supported(config: dict[str, Any]) -> None:
    name, kind = config["task"], config.get("output_type", "generate_until")
    if "class" in config:
        raise ConfigError(
            f"The task {name!r} is a Python class of its own, not a task file; it is not supported."
            " Give one that is written in YAML alone."
        )
    if kind not in OUTPUT_TYPES:
        raise ConfigError(
            f"The task {name!r} has output_type {kind!r}; supported are {', '.join(OUTPUT_TYPES)}."
        )
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise ConfigError(f"The task {name!r} asks about images or sounds; give one of texts.")
    if config.get("unsafe_code"):
        raise ConfigError(
            f"The task {name!r} runs the code that a model writes, which is not done here; give"
            " another task."
        )
    if config.get("use_prompt"):
        raise ConfigError(
            f"The task {name!r} takes its prompts from promptsource (use_prompt), which is not"
            " supported; write doc_to_text and doc_to_target into a task file."
        )
    if config.get("dataset_path") in _REFUSED_READERS:
        raise ConfigError(
            f"The task {name!r} reads its data as {config['dataset_path']}, which may run code of"
            f" the file. Save them in a form such as {', '.join(_LOCAL_READERS)}."
        )
    asked = dict(config.get("generation_kwargs") or {})
    sampled = asked.get("do_sample") or (
        "do_sample" not in asked and float(asked.get("temperature") or 0) > 0
    )
    if sampled or int(asked.get("num_beams") or 1) > 1:
        raise ConfigError(
            f"The task {name!r} draws its answers by chance or searches by beams"
            f" (generation_kwargs {asked}); answers are written greedily here. Give a task with"
            " do_sample: false."
        )
    unknown = set(asked) - {*_TRANSPARENT, *_GREEDY}
    if unknown:
        raise ConfigError(
            f"The task {name!r} has generation_kwargs that are not supported:"
            f" {', '.join(sorted(unknown))}; supported are {', '.join((*_TRANSPARENT, *_GREEDY))}."
        )
    if int(config.get("repeats") or 1) > 1:
        raise ConfigError(
            f"The task {name!r} asks every question {config['repeats']} times (repeats); greedy"
            " answers are the same each time. Give a task without it."
        )


def _build(config: dict[str, Any], trust: bool) -> Any:
    """Return the harness's own task; its data are loaded."""
    import datasets
    from jinja2.exceptions import SecurityError
    from lm_eval.api.task import ConfigurableTask

    plain = {k: v for k, v in config.items() if k not in ("!file", "tag", "group", "task_list")}
    ready = replaced(plain, Code.load)
    kwargs = dict(ready.get("dataset_kwargs") or {})
    kwargs.pop("trust_remote_code", None)
    if int(datasets.__version__.split(".")[0]) < 4:  # later ones never run code of a dataset
        kwargs["trust_remote_code"] = trust
    path, folder = ready.get("dataset_path"), Path(config["!file"]).parent
    if path in _LOCAL_READERS and "data_files" in kwargs:
        kwargs["data_files"] = _found(kwargs["data_files"], folder)
    if not trust:
        _check_places(config["task"], [path, *(kwargs.get(k) for k in _PLACES)], folder)
    ready["dataset_kwargs"] = kwargs
    metadata = ready.get("metadata")
    ready["metadata"] = metadata if isinstance(metadata, dict) else {"_metadata": metadata}
    try:
        return ConfigurableTask(config=ready)
    except (MemoryError, SecurityError):
        raise
    except Exception as error:
        raise DataError(_not_built(config, error)) from error


def _not_built(config: dict[str, Any], error: Exception) -> str:
    path, kwargs = config.get("dataset_path"), config.get("dataset_kwargs") or {}
    said = in_words(error)
    splits = [value for key, value in config.items() if key.endswith("_split")]
    if isinstance(error, KeyError) and error.args and error.args[0] in splits:
        return f"The data of the task {config['task']!r} have no split {error.args[0]!r}."
    if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _LOADING:
        return (
            f"The harness cannot make the task {config['task']!r}: {said}. Do its templates name"
            " fields that its documents have, and does it say what this version of lm-eval knows?"
        )
    if path in _LOCAL_READERS:
        return (
            f"The harness cannot make the task {config['task']!r} of {kwargs.get('data_files')}:"
            f" {said}. data_files are looked for in the working folder, and beside the task file."
        )
    return (
        f"The harness cannot make the task {config['task']!r}, whose data are the dataset {path!r}"
        f" of the Hugging Face hub: {said}. Without network only datasets that were loaded before"
        " can be used; a task file with dataset_path: json and local data_files needs none."
    )


def _found(files: Any, folder: Path) -> Any:
    """Return data files, those that are not in the working folder from beside the task file."""
    if isinstance(files, dict):
        return {split: _found(inner, folder) for split, inner in files.items()}
    if isinstance(files, (list, tuple)):
        return [_found(inner, folder) for inner in files]
    if "://" in str(files):
        raise DataError(
            f"{str(files)[:200]!r} is an address; nothing is downloaded here. Download the file,"
            " put it beside the task file and give its name."
        )
    beside = str(folder / str(files))
    if not _is_there(beside) or Path(beside).resolve() == Path(str(files)).resolve():
        return files
    if not _is_there(str(files)):
        return beside
    warnings.warn(
        f"{files} is in the working folder and beside the task file; that of the working folder is"
        " read, as the harness does.",
        stacklevel=2,
    )
    return files


_PLACES = ("data_files", "data_dir", "cache_dir")
"""Options of a dataset that name files of this computer."""


def _check_places(task: str, named: Any, folder: Path) -> None:
    """Refuse data of a task file that lie neither beside it nor in the working folder.

    Whoever wrote the file would else have any file of the user's read, into prompts and reports.
    """
    if isinstance(named, Mapping):
        named = list(named.values())
    if isinstance(named, (list, tuple)):
        for one in named:
            _check_places(task, one, folder)
        return
    if named is None:
        return
    roots = [os.path.realpath(root) + os.sep for root in (folder, Path.cwd())]
    leads = Path(str(named)).expanduser()
    found = set(glob.iglob(str(named), recursive=True))
    if leads.is_absolute() or ".." in leads.parts:  # also where it is a pattern of another kind
        found.add(str(leads))
    for path in found:
        real = os.path.realpath(path) + os.sep
        if not any(real.startswith(root) and root != os.sep for root in roots):
            raise DataError(
                f"The task {task!r} reads {str(named)[:200]!r}, which leads to {real[:-1][:200]},"
                " outside of its folder and of the working folder. A task file from somebody else"
                " could have your files read so. Put the data beside the task file, or give"
                " trust_remote_code=True if you trust it."
            )


def _is_there(pattern: str) -> bool:
    return Path(pattern).exists() or next(glob.iglob(pattern, recursive=True), None) is not None


def _shots(task: Any, config: dict[str, Any], shots: int | None) -> int:
    own = task.config.num_fewshot
    if shots is None:
        return int(own or 0)
    shots = int(whole("HarnessTask", "shots", shots, minimum=0, maximum=1000))
    if own == 0 and shots:
        raise ConfigError(
            f"The task {config['task']!r} fixes num_fewshot: 0, which the harness never overrides;"
            " leave out shots=."
        )
    if shots and config.get("output_type") == "loglikelihood_rolling":
        raise ConfigError("A task of plain text has no solved examples; leave out shots=.")
    return shots


def _other_parts(
    task: Any, names: Mapping[str, str | None], evaluated: str | None, seed: int
) -> tuple[dict[str, Sequence[Any]], dict[str, str]]:
    """Return the documents that are not evaluated as calibration and validation part."""
    given = {
        "training": task.training_docs if task.has_training_docs() else None,
        "validation": task.validation_docs if task.has_validation_docs() else None,
    }
    usable = {
        name: list(read())
        for name, read in given.items()
        if read is not None and names[name] != evaluated
    }
    if len(usable) == 2 and names["training"] == names["validation"]:
        del usable["validation"]
    fewshot = task.fewshot_cfg.split
    if not usable and fewshot is not None and fewshot != evaluated:
        usable["training"] = list(task.fewshot_docs())
        names = {**names, "training": fewshot}
    parts: dict[str, Sequence[Any]] = {}
    limits = {"calibration": MOST_CALIBRATION_ROWS, "validation": MOST_VALIDATION_ROWS}
    if len(usable) == 2:
        parts = {"calibration": usable["training"], "validation": usable["validation"]}
        splits = {"calibration": names["training"], "validation": names["validation"]}
    elif usable:
        ((name, pool),) = usable.items()
        dealt = deal([1] * len(pool), SHARES, seed)
        parts = {part: [pool[i] for i in chosen] for part, chosen in dealt.items()}
        splits = dict.fromkeys(parts, names[name])
    else:
        return {"calibration": [], "validation": []}, {}
    for part, most in limits.items():
        if len(parts[part]) > most:
            chosen = random.Random(seed).sample(range(len(parts[part])), most)
            parts[part] = [parts[part][i] for i in sorted(chosen)]
    return parts, {part: str(split) for part, split in splits.items()}


def _few_shot_findings(
    task: Any, names: Mapping[str, str | None], evaluated: str | None, shots: int
) -> tuple[str, ...]:
    if not shots or (task.fewshot_cfg.split is None and task.fewshot_cfg.samples is not None):
        return ()
    source = task.fewshot_cfg.split or names["training"] or names["validation"] or evaluated
    if source != evaluated:
        return ()
    return (
        f"its {shots} solved example{'s' * (shots != 1)} before each document come from the"
        f" evaluated split {evaluated!r} itself, as the harness draws them; a task file with"
        " fewshot_split draws them from elsewhere.",
    )


class _Writer:
    """Writes a task's documents as rows."""

    def __init__(self, task: Any, shots: int, seed: int, keep_docs: bool) -> None:
        self._task = task
        self._shots = shots
        self._seed = seed
        self._keep = keep_docs
        self._pool: list[Any] = list(task.fewshot_docs() or ()) if shots else []
        if len(self._pool) < shots:
            raise ConfigError(
                f"The task {task.config.task!r} has {len(self._pool)} documents to draw solved"
                f" examples from, and {shots} are asked for; give shots={len(self._pool)} or fewer."
            )

    def rows(self, docs: Iterable[Any], context: Callable[[Any, int], Any]) -> Iterator[HarnessRow]:
        from jinja2.exceptions import SecurityError

        for number, doc in enumerate(docs):
            try:
                yield self._row(doc, context(doc, number))
            except (MemoryError, SecurityError):
                raise
            except Exception as error:
                raise DataError(
                    f"Document {number} of the task {self._task.config.task!r} cannot be written as"
                    f" a prompt: {in_words(error)}."
                ) from error

    def as_the_harness(self, doc: Any, number: int) -> Any:
        """Return a context; the examples in it are drawn one document after the other."""
        return self._task.fewshot_context(
            doc, num_fewshot=self._shots, gen_prefix=self._task.doc_to_prefix(doc)
        )

    def with_other_shots(self, doc: Any, number: int) -> Any:
        """Return a context whose solved examples are others than the document itself."""
        from lm_eval.api.samplers import FirstNSampler

        sampler = getattr(self._task, "sampler", None)
        if not self._shots or sampler is None:
            return self.as_the_harness(doc, number)
        first = isinstance(sampler, FirstNSampler)
        self._task.sampler = _Others(self._pool, doc, None if first else self._seed + number)
        try:
            return self.as_the_harness(doc, number)
        finally:
            self._task.sampler = sampler

    def _row(self, doc: Any, context: Any) -> HarnessRow:
        task = self._task
        made = task.construct_requests(doc=doc, ctx=context, metadata=(task.config.task, 0, 1))
        arguments = [one.args for one in (made if isinstance(made, list) else [made])]
        kept = json.loads(json.dumps(dict(doc), default=str)) if self._keep else None
        kind = task.OUTPUT_TYPE
        if kind == "loglikelihood_rolling":
            text = str(arguments[0][0])
            return HarnessRow(
                text,
                (),
                (text,),
                words=task.count_words(task.doc_to_target(doc)),
                bytes=task.count_bytes(task.doc_to_target(doc)),
                doc=kept,
            )
        asked = task.doc_to_text(doc)
        if kind == "multiple_choice":
            choices = _choices(task, doc)
            contexts = [str(one[0]) for one in arguments]
            text = asked if isinstance(asked, str) else " / ".join(choices)
            return HarnessRow(
                str(text),
                tuple(contexts if len(set(contexts)) > 1 else contexts[:1]),
                tuple(str(one[1]) for one in arguments),
                choices,
                _golds(task, doc, choices),
                doc=kept,
            )
        target = str(arguments[0][1]) if kind == "loglikelihood" else self._target(doc)
        return HarnessRow(str(asked), (str(arguments[0][0]),), (target,), golds=(0,), doc=kept)

    def _target(self, doc: Any) -> str:
        """Return a right answer, as it would follow the context."""
        task = self._task
        target = task.doc_to_target(doc)
        if task.config.doc_to_choice is not None and isinstance(target, int):
            target = task.doc_to_choice(doc)[target]
        if isinstance(target, (list, tuple)):
            target = target[0] if target else ""
        return f"{task.config.target_delimiter}{target}"


def _choices(task: Any, doc: Any) -> tuple[str, ...]:
    found = task.doc_to_choice(doc)
    if isinstance(found, str):  # as from a table; the harness would take its letters
        raise ValueError(
            f"doc_to_choice gives one text, {found[:60]!r}, where a list of answers is expected."
            ' In a table write them as a list, and name the column as "{{column}}"'
        )
    if not found:
        raise ValueError("it has no answers to choose from (doc_to_choice)")
    return tuple(str(choice) for choice in found)


def _golds(task: Any, doc: Any, choices: Sequence[str]) -> tuple[int, ...]:
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if gold is None:
        return ()
    if isinstance(gold, str):
        return (choices.index(gold),) if gold in choices else ()
    found = list(gold) if isinstance(gold, (list, tuple)) else [gold]
    return tuple(int(one) for one in found if 0 <= int(one) < len(choices))


class _Others:
    """Draws solved examples for documents that are not evaluated, never the document itself."""

    def __init__(self, pool: Sequence[Any], doc: Any, seed: int | None) -> None:
        self._pool = pool
        self._doc = doc
        self._seed = seed

    def sample(self, n: int, eval_doc: Any = None, **_: Any) -> list[Any]:
        count = len(self._pool)
        drawn = list(range(count))  # the first ones, or by chance
        if self._seed is not None:
            drawn = random.Random(self._seed).sample(drawn, min(n + 1, count))
        return [self._pool[i] for i in drawn if self._pool[i] != self._doc][:n]
