"""A task as it was recorded, scored by the harness's own code without its data or files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from workbench.errors import ConfigError
from workbench.tasks.harness.library import (
    harness_at_work,
    harness_version,
    in_words,
    require_harness,
)
from workbench.tasks.harness.scores import Score
from workbench.tasks.harness.trusted_code import Code, check_trusted, replaced


class _Documents(list[Any]):
    """Documents, as much of a dataset as the harness asks for."""

    @property
    def features(self) -> dict[str, Any]:
        return dict.fromkeys(self[0] if self else ())


class Recorded:
    """Scores answers by ``process_results``, filters and aggregation of the harness.

    Parameters
    ----------
    config : dict
        The task's configuration, functions as :class:`Code`.
    document : dict
        Any of its documents; the harness tries its templates on it.
    version : str
        Of the harness that the task was made with.
    """

    def __init__(self, config: dict[str, Any], document: dict[str, Any], version: str) -> None:
        self._config = config
        self._document = document
        self._version = version
        self._task: Any = None

    def check(self) -> None:
        """Raise ConfigError if answers could not be scored: before a model writes them."""
        self._ready()

    def score(
        self,
        documents: Sequence[dict[str, Any]],
        responses: Sequence[Sequence[Any]],
        scores: Sequence[Score],
    ) -> dict[str, list[Any]]:
        """Return what the harness makes of every document, by the name of the score.

        Parameters
        ----------
        documents : sequence of dict
        responses : sequence of sequence
            Of each document's requests: an answer, or (log-likelihood, whether it is greedy).
        scores : sequence of Score

        Raises
        ------
        ConfigError
            If the harness is not installed, or its code fails.
        """
        task = self._ready()
        from lm_eval.api.instance import Instance

        kind = "generate_until" if task.OUTPUT_TYPE == "generate_until" else "loglikelihood"
        made = [
            [
                Instance(kind, doc, (), number, (None, place, 1), resps=[response])
                for number, response in enumerate(of_document)
            ]
            for place, (doc, of_document) in enumerate(zip(documents, responses, strict=True))
        ]
        found: dict[str, list[Any]] = {score.name: [] for score in scores}
        with harness_at_work():
            try:
                for ensemble in task._filters:
                    ensemble.apply([one for of_document in made for one in of_document])
                for doc, of_document in zip(documents, made, strict=True):
                    results: dict[str, dict[str, Any]] = {}
                    for score in scores:
                        if score.filter not in results:
                            filtered = [one.filtered_resps[score.filter] for one in of_document]
                            results[score.filter] = task.process_results(doc, filtered)
                        found[score.name].append(results[score.filter].get(score.source))
            except MemoryError:
                raise
            except Exception as error:
                raise ConfigError(
                    f"The harness cannot score the answers to {self._config['task']!r}:"
                    f" {in_words(error)}."
                ) from error
        return found

    def aggregate(self, score: Score) -> Callable[[Any], float]:
        """Return the harness's function that makes one number of all documents'."""
        found: Callable[[Any], float] = self._ready().aggregation()[score.source]
        return found

    def _ready(self) -> Any:
        if self._task is None:
            require_harness()
            if harness_version() != self._version:
                warnings.warn(
                    f"The task {self._config['task']!r} was made with lm-eval {self._version}, and"
                    f" {harness_version()} is installed; its scores may be counted differently.",
                    stacklevel=2,
                )
            self._task = self._built()
        return self._task

    def _built(self) -> Any:
        from lm_eval.api.task import ConfigurableTask

        documents = _Documents([self._document])

        class RecordedTask(ConfigurableTask):
            """The task on one document; nothing is downloaded."""

            def download(self, dataset_kwargs: Any = None, **_: Any) -> None:
                self.dataset = {"recorded": documents}

        check_trusted(self._config)
        plain = {k: v for k, v in self._config.items() if k not in _OF_THE_DATA}
        ready = replaced(plain, Code.load)
        with harness_at_work():
            return RecordedTask(config={**ready, "test_split": "recorded", "num_fewshot": 0})


_OF_THE_DATA = (
    "!file",
    "tag",
    "group",
    "task_list",
    "metadata",
    "custom_dataset",
    "dataset_kwargs",
    "process_docs",
    "training_split",
    "validation_split",
    "fewshot_split",
    "fewshot_config",
    "num_fewshot",
)
"""Keys that say where documents come from; the recorded ones are as they were made then."""
