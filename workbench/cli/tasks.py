"""The terminal's options that say what a task is, and the task that they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.tasks import Task

KINDS = ("classification", "extraction", "summarization", "answers", "similarity")
"""What a table can be used for; a text file is for language modelling."""

_HARNESS, _TASK_FILES = "lm-eval:", (".yaml", ".yml")
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx")

Kind = Annotated[
    str | None,
    typer.Option(
        help=f"What is done with the table: {', '.join(KINDS)}. By default what its columns say:"
        " --label means classification, --target extraction."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "--fields",
        help="Column with what is to be written; for extraction several, separated by commas; for"
        " similarity the second text, whose likeness to the first --label scores.",
    ),
]
Shots = Annotated[
    int | None, typer.Option(help="Solved examples before each text that is written about.", min=0)
]
Template = Annotated[
    str | None, typer.Option(help='Prompt around the text, such as "summarize: {text}".')
]

TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run the Python code that a harness task names."),
]


@dataclass(frozen=True)
class TaskOptions:
    """What was said of a task; None for what was not.

    Attributes
    ----------
    kind : str or None
        One of :data:`KINDS`.
    text, label, target : str or None
        Columns of the table; the last one may name several.
    shots : int or None
    template : str or None
    trust_remote_code : bool
        For tasks of the lm-evaluation-harness.
    encoding : str or None
        Of the files; None: it is detected.
    on_bad_rows : str or None
        "error" or "skip", for a table; None: "error".
    """

    kind: str | None = None
    text: str | None = None
    label: str | None = None
    target: str | None = None
    shots: int | None = None
    template: str | None = None
    trust_remote_code: bool = False
    encoding: str | None = None
    on_bad_rows: str | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """Return how a table is read, as keyword arguments of a task."""
        found: dict[str, Any] = {"encoding": self.encoding}
        return found if self.on_bad_rows is None else {**found, "on_bad_rows": self.on_bad_rows}


def task_of(ref: str, told: TaskOptions) -> Task | str:
    """Return the task of a file, or the name of a bundled one.

    Raises
    ------
    ConfigError
        If the options do not fit the file, or each other.
    """
    if ref.startswith(_HARNESS) or ref.lower().endswith(_TASK_FILES):
        return _harness(ref, told)
    if told.trust_remote_code:
        raise ConfigError(
            f"--trust-remote-code is for tasks of the harness, and --task {ref} is none; give"
            " lm-eval:NAME or a .yaml file, or leave it out."
        )
    if not ref.lower().removesuffix(".gz").endswith(_TABLES):
        given = ("kind", "text", "label", "target", "shots", "template", "on_bad_rows")
        if any(getattr(told, name) is not None for name in given):
            raise ConfigError(
                "--kind, --text, --label, --target, --shots, --template and --on-bad-rows are for a"
                f" table, and --task {ref} is none; give a file that ends with"
                f" {', '.join(_TABLES)}, or leave"
                " them out."
            )
        if ref == "demo":
            return ref
        from workbench.tasks import LanguageModeling, Retrieval
        from workbench.tasks.retrieval import is_retrieval_folder

        if is_retrieval_folder(Path(ref)):
            return Retrieval.from_folder(ref)
        return LanguageModeling(ref, encoding=told.encoding)
    kind = told.kind or ("classification" if told.target is None else "extraction")
    if kind not in KINDS:
        raise ConfigError(f"--kind {kind!r} is not accepted; give one of {', '.join(KINDS)}.")
    if kind == "classification":
        return _classification(ref, told)
    if kind == "similarity":
        return _similarity(ref, told)
    return _writing(ref, kind, told)


def _harness(ref: str, told: TaskOptions) -> Task:
    from workbench.tasks import HarnessTask

    for name in ("kind", "text", "label", "target", "template"):
        if getattr(told, name) is not None:
            raise ConfigError(
                f"--{name} is for a table, and --task {ref} is a task of the harness, which says"
                " that itself; leave it out."
            )
    return HarnessTask(ref, shots=told.shots, trust_remote_code=told.trust_remote_code)


def _classification(ref: str, told: TaskOptions) -> Task:
    from workbench.tasks import TextClassification

    _refuse(told, "classification", "target", "shots", "template")
    if told.text is None or told.label is None:
        raise ConfigError(
            f"--task {ref} is a table: name its columns, as in --text question --label intent; or"
            " --text letter --target name for what a model is to write (--kind extraction,"
            " summarization or answers)."
        )
    return TextClassification(ref, text=told.text, label=told.label, **told.reading)


def _similarity(ref: str, told: TaskOptions) -> Task:
    from workbench.tasks import SentenceSimilarity

    _refuse(told, "similarity", "shots", "template")
    if told.text is None or told.target is None or told.label is None:
        raise ConfigError(
            "--kind similarity needs the columns of two texts and of their score, as in --text"
            " sentence1 --target sentence2 --label score."
        )
    return SentenceSimilarity(
        ref, text=told.text, other=told.target, score=told.label, **told.reading
    )


def _writing(ref: str, kind: str, told: TaskOptions) -> Task:
    from workbench.tasks import Extraction, PromptAnswers, Summarization

    _refuse(told, kind, "label")
    if told.text is None or told.target is None:
        raise ConfigError(
            f"--kind {kind} needs the table's columns, as in --text letter --target name; for"
            " extraction --target may name several, separated by commas."
        )
    if kind == "answers":
        _refuse(told, kind, "shots", "template")
        return PromptAnswers(ref, prompt=told.text, answer=told.target, **told.reading)
    options: dict[str, Any] = {"text": told.text, **told.reading}
    options |= {} if told.shots is None else {"shots": told.shots}
    options |= {} if told.template is None else {"template": told.template}
    if kind == "summarization":
        return Summarization(ref, summary=told.target, **options)
    fields = [name.strip() for name in told.target.split(",") if name.strip()]
    return Extraction(ref, fields=fields, **options)


def _refuse(told: TaskOptions, kind: str, *names: str) -> None:
    for name in names:
        if getattr(told, name) is not None:
            raise ConfigError(f"--{name} has no meaning for --kind {kind}; leave it out.")
