"""What a harness task says of itself: its scores in order, how it writes, what is recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from workbench.errors import ConfigError, DataError
from workbench.fields import shown
from workbench.tasks.data import read_texts
from workbench.tasks.harness.documents import HarnessRow, Reading
from workbench.tasks.harness.scores import Score
from workbench.tasks.harness.trusted_code import Code, replaced
from workbench.tasks.next_token import NextToken

DEFAULT_NEW_TOKENS = 256
"""The harness's, where a task does not say how long an answer may be."""


def ordered(scores: list[Score], metric: str | None, task: str) -> list[Score]:
    """Return the scores with the wanted one first."""
    if not scores:
        raise ConfigError(
            f"The task {task!r} has no metric that makes a number; give a metric_list to its file."
        )
    if metric is None:
        return scores
    chosen = [score for score in scores if metric == score.name]
    if not chosen:
        raise ConfigError(
            f"The task {task!r} has no metric {metric!r}; it has"
            f" {', '.join(score.name for score in scores)}."
        )
    return chosen + [score for score in scores if score not in chosen]


def generation(read: Reading) -> dict[str, Any]:
    """Return how answers are written, by the harness's defaults."""
    asked = dict(read.task.config.generation_kwargs or {})
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    given = [asked[name] for name in names if asked.get(name) is not None]
    stops = asked.get("until") or []
    return {
        "new_tokens": int(given[0]) if given else DEFAULT_NEW_TOKENS,
        "stops": [stops] if isinstance(stops, str) else [str(stop) for stop in stops],
    }


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as JSON has it, functions as what they are called."""
    named = replaced(config, Code.to_dict)
    found: dict[str, Any] = json.loads(json.dumps(named, default=str))
    return found


def digest(config: dict[str, Any]) -> str:
    """Return what changes where a configuration scores otherwise; paths and data do not count."""
    apart = {
        k: v for k, v in config.items() if k not in ("!file", "dataset_kwargs", "dataset_path")
    }

    def without_paths(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without_paths(v) for k, v in value.items() if k != "file"}
        return [without_paths(v) for v in value] if isinstance(value, list) else value

    text = json.dumps(without_paths(apart), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def labels(rows: Sequence[HarnessRow], width: int) -> tuple[str, ...]:
    """Return the answers if all documents have the same, else letters."""
    first = rows[0].choices if rows else ()
    if not all(row.choices == first for row in rows):
        first = ()
    more = range(len(first), width)  # of another task's part
    return (*first, *(chr(ord("A") + i) if i < 26 else str(i + 1) for i in more))


def given_rows(given: Any, part: str) -> tuple[HarnessRow, ...]:
    """Return the rows of a part that the user gives: texts, or another task's part."""
    if getattr(given, "kind", None) == "lm_eval":
        rows = given.rows[part] or given.rows["calibration"]
        return tuple(dataclasses.replace(row, doc=None) for row in rows)
    documents = getattr(given, "documents", None)
    if documents is None and isinstance(given, NextToken):
        raise DataError(
            f"{part}={shown(given)} is not accepted; give texts, a LanguageModeling task or a"
            " HarnessTask."
        )
    if documents is not None:
        texts = [document.text for document in documents[part]]
    else:
        texts = [text for _, text in read_texts(given)]
    return tuple(
        HarnessRow(text, (), (text,), words=len(text.split()), bytes=len(text.encode("utf-8")))
        for text in texts
    )
