"""Local task files of the lm-evaluation-harness and their data, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

COLOURS = ("red", "green", "dark blue", "yellow")
THINGS = ("apple", "leaf", "sea", "lemon", "tomato", "frog", "night", "sun")


def documents(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return questions with four answers of different lengths, one of them right."""
    found = []
    for number in range(start, start + count):
        right = (number * 7 + number // 3) % 4
        thing = THINGS[number % len(THINGS)]
        found.append(
            {
                "question": f"What colour has {thing} number {number}?",
                "choices": list(COLOURS[number % 2 :] + COLOURS[: number % 2]),
                "answer": right,
                "name": COLOURS[right],
            }
        )
    return found


MULTIPLE_CHOICE: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_target": "answer",
    "doc_to_choice": "choices",
    "metric_list": [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in ("acc", "acc_norm", "acc_bytes", "exact_match")
    ]
    + [{"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False}],
}

LETTERS: dict[str, Any] = {
    **MULTIPLE_CHOICE,
    "doc_to_choice": ["A", "B", "C", "D"],
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True},
    ],
}

INPUTS: dict[str, Any] = {
    **MULTIPLE_CHOICE,
    "doc_to_text": "{{answer}}",
    "doc_to_choice": "{{[question + ' ' + choices[0], question + ' ' + choices[1], "
    "question + ' ' + choices[2], question + ' ' + choices[3]]}}",
    "doc_to_target": "is right.",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}

LOGLIKELIHOOD: dict[str, Any] = {
    "output_type": "loglikelihood",
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_target": " {{name}}",
    "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    ],
}

ROLLING: dict[str, Any] = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{question}} {{choices|join(', ')}}. {{question}} It is {{name}}. "
    "{% if answer % 2 %}{{question}} {{name}}! {{question}} {{name}}!{% endif %}",
}

GENERATION: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_target": "name",
    "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": 12, "do_sample": False},
    "filter_list": [
        {"name": "whole", "filter": [{"function": "take_first"}]},
        {
            "name": "word",
            "filter": [
                {"function": "regex", "regex_pattern": "([a-z]+)", "fallback": "none"},
                {"function": "take_first"},
            ],
        },
    ],
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            "ignore_case": True,
        },
        {"metric": "chrf", "aggregation": "chrf", "higher_is_better": True},
    ],
}


def write_task(
    folder: Path, name: str, config: dict[str, Any], *, counts: tuple[int, int, int] = (60, 20, 40)
) -> Path:
    """Write a task file beside its data, and return its path.

    Parameters
    ----------
    folder : Path
    name : str
    config : dict
        Without the data.
    counts : tuple of (int, int, int)
        Documents of the splits train, validation and test; a split of none is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, start = {}, 0
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        if count:
            lines = [json.dumps(doc) for doc in documents(count, start)]
            (folder / f"{name}-{split}.jsonl").write_text("\n".join(lines) + "\n")
            files[split] = f"{name}-{split}.jsonl"
        start += count
    given = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        **{
            f"{ours}_split": split
            for ours, split in (
                ("training", "train"),
                ("validation", "validation"),
                ("test", "test"),
            )
            if split in files
        },
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**given, **config}, sort_keys=False))
    return path
