"""When to believe a run: calibration, confident mistakes, flips, slices, consistency."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, overload
from weakref import WeakKeyDictionary

import numpy as np

from workbench.errors import ConfigError, StudyError
from workbench.progress import Monitor, Progress
from workbench.records import RunState
from workbench.study.base import StudyBase
from workbench.study.handles import Run

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.selection.trust import Flips, Perturbation, Reliability, Slice, TrustView
    from workbench.tasks import HarnessTask, TextClassification
    from workbench.tasks.outcomes import Outcomes


@dataclass(frozen=True, eq=False)
class Trust:
    """What :meth:`Study.trust` found out about one run, on the evaluation part.

    Attributes
    ----------
    run, dense : Run
        The run and its base model.
    temperature : float
        Fitted on the validation part; above 1 the run is too sure of itself.
    before, after : Reliability
        Of the recorded confidence, and at the temperature.
    wrong_rate : float
        Share of examples on which the run is wrong and says at least ``threshold``.
    wrong_interval : (float, float)
        95 %, clustered by document.
    confidently_wrong : DataFrame
        Those examples, surest first: text, label, prediction, confidence.
    flips : Flips
        Against the base model.
    flipped : DataFrame
        Every example whose prediction changed: text, label, both predictions, what changed.
    slices : tuple of Slice
        Ranked: where compression hurt most surely comes first.
    """

    run: Run
    dense: Run
    temperature: float
    before: Reliability
    after: Reliability
    threshold: float
    wrong_rate: float
    wrong_interval: tuple[float, float]
    confidently_wrong: pd.DataFrame
    flips: Flips
    flipped: pd.DataFrame
    slices: tuple[Slice, ...]

    def slice_table(self) -> pd.DataFrame:
        """Return one row per slice, ranked."""
        import dataclasses

        import pandas as pd

        rows = [{**dataclasses.asdict(s), "change": s.change} for s in self.slices]
        return pd.DataFrame(rows)

    def view(self) -> TrustView:
        """Return what is shown of it as plain numbers and texts."""
        from workbench.selection.trust import Changed, Mistake, TrustView
        from workbench.selection.trust.view import MOST_EXAMPLES

        wrong = self.confidently_wrong.head(MOST_EXAMPLES).to_dict("records")
        flipped = self.flipped.head(MOST_EXAMPLES).to_dict("records")
        return TrustView(
            words=str(self),
            before=self.before,
            after=self.after,
            temperature=self.temperature,
            threshold=self.threshold,
            wrong_rate=float(self.wrong_rate),
            wrong_interval=self.wrong_interval,
            flip_rate=float(self.flips.rate),
            flip_interval=self.flips.interval,
            lost=len(self.flips.lost),
            gained=len(self.flips.gained),
            mistakes=tuple(Mistake(**{str(k): v for k, v in row.items()}) for row in wrong),
            changed=tuple(Changed(**{str(k): v for k, v in row.items()}) for row in flipped),
            slices=self.slices,
        )

    def plot(self) -> go.Figure:
        """Return the reliability diagram, before and after the temperature."""
        from workbench.views.figures import reliability_figure

        return reliability_figure(self.before, self.after, self.temperature)

    def __str__(self) -> str:
        text = (
            f"{self.run.label}: calibration error {self.before.error:.1%}, {self.after.error:.1%}"
            f" at temperature {self.temperature:.2f}; confidently wrong in {self.wrong_rate:.1%}"
            f" ({self.wrong_interval[0]:.1%} to {self.wrong_interval[1]:.1%});"
            f" {self.flips.rate:.1%} of the answers differ from the base model's"
            f" ({len(self.flips.lost)} lost, {len(self.flips.gained)} gained)."
        )
        sure = [s for s in self.slices if s.adjusted_p_value < 0.05]
        if sure:
            named = ", ".join(f"{s.column} {s.value!r} ({s.change:+.1%})" for s in sure[:3])
            text += f" It surely hurts {named}."
        return text


class Trusting(StudyBase):
    """Outcomes of any part, and what they say about trust."""

    def outcomes(
        self,
        run: Run | str,
        part: str = "evaluation",
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcomes:
        """Return per-example outcomes of a part of the data; what was not evaluated yet is.

        Outcomes of the validation part are what thresholds and temperatures are chosen by. They
        are kept in the study beside the evaluation's.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        part : {"evaluation", "validation", "calibration"}
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Raises
        ------
        StudyError
            If the run is not done.
        """
        id = self._id_of(run)
        record = self._store.record(id)
        if record is None or record.state is not RunState.DONE:
            state = "deleted" if record is None else record.state.value
            raise StudyError(
                f"Run {id} is {state}, so it has no outcomes; only finished runs have."
            )
        if part == "evaluation":
            found = self._store.outcomes(id)
            if "prediction" not in found or "entropy" in found:
                return found
        kept = self._store.outcomes_of(id, part)
        if kept is None:
            kept = self._get_engine().outcomes(id, part, monitor=Monitor(on_progress))
            # A read-only study is looked into all the same.
            with contextlib.suppress(OSError, StudyError):
                self._store.keep_outcomes(id, part, kept)
        return kept

    def trust(
        self,
        run: Run | str,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        threshold: float = 0.9,
        bins: int = 15,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Trust:
        """Say when a run's answers can be believed, for a classification task.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        columns : mapping of str to sequence, optional
            Further columns to slice by, one value per row of the evaluation part. Length, label
            and the task's own ``columns`` are looked at anyway.
        threshold : float
            Confidence from which a mistake is a confident one.
        bins : int
            Of the reliability diagram.
        on_progress : callable, optional
            The validation part is evaluated the first time.

        Raises
        ------
        ConfigError
            If the task is no classification.
        StudyError
            If the run or its base model is not done.
        """
        import pandas as pd

        from workbench.selection.trust import (
            confidently_wrong,
            find_flips,
            fit_temperature,
            length_groups,
            rank_slices,
            reliability,
            tempered,
        )

        task = self._classification()
        id = self._id_of(run)
        model = self._handle(id).record.model
        base = self.baseline(model)
        if base is None:
            raise StudyError(f"The base model {model!r} was not evaluated yet: study.run([]).")
        found = self.outcomes(id, on_progress=on_progress)
        dense = self.outcomes(base, on_progress=on_progress)
        temperature = fit_temperature(self.outcomes(id, "validation", on_progress=on_progress))
        label, answer = np.asarray(found["label"]), np.asarray(found["prediction"])
        rows = [task.rows["evaluation"][i] for i in np.asarray(found["example"])]
        names = np.array([*task.labels, "(other)"], dtype=object)
        sure = np.asarray(found["confidence"], dtype=float)
        wrong, rate, interval = confidently_wrong(found, threshold)
        flips = find_flips(dense, found)
        groups: dict[str, Any] = {
            "length": length_groups([len(row.text) for row in rows]),
            "label": names[label].astype(str),
        }
        for number, (column, _) in enumerate(rows[0].more if rows else ()):
            groups[column] = [row.more[number][1] for row in rows]
        for column, values in (columns or {}).items():
            groups[column] = _per_row(column, values, found, len(task.rows["evaluation"]))

        def said(outcomes: Outcomes, chosen: np.ndarray) -> Any:
            codes = np.minimum(np.asarray(outcomes["prediction"])[chosen], len(task.labels))
            return names[codes]

        kinds = {"lost": flips.lost, "gained": flips.gained, "other": flips.other}
        changed = np.concatenate(list(kinds.values()))
        return Trust(
            run=self._handle(id),
            dense=base,
            temperature=temperature,
            before=reliability(sure, label == answer, bins=bins),
            after=reliability(tempered(found, temperature), label == answer, bins=bins),
            threshold=threshold,
            wrong_rate=rate,
            wrong_interval=interval,
            confidently_wrong=pd.DataFrame(
                {
                    "text": [rows[i].text for i in wrong],
                    "label": names[label[wrong]],
                    "prediction": said(found, wrong),
                    "confidence": sure[wrong],
                }
            ),
            flips=flips,
            flipped=pd.DataFrame(
                {
                    "text": [rows[i].text for i in changed],
                    "label": names[label[changed]],
                    "dense": said(dense, changed),
                    "run": said(found, changed),
                    "change": np.repeat(list(kinds), [len(v) for v in kinds.values()]),
                }
            ),
            slices=rank_slices(dense, found, groups),
        )

    def consistency(
        self,
        run: Run | str,
        perturbations: Mapping[str, Perturbation | str] | None = None,
        *,
        seed: int = 0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> pd.DataFrame:
        """Change the texts a little and see whether the answers stay; the model is run for each.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        perturbations : mapping of str to callable or str, optional
            A function of a text and a ``random.Random``, or a template such as
            ``"Dear team, {text}"``. Default: :data:`workbench.selection.trust.PERTURBATIONS`.
        seed : int
            Of what is drawn by chance.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Returns
        -------
        DataFrame
            One row each: share of the answers that stay with its 95 % interval, accuracy, and its
            change with its paired 95 % interval.
        """
        import pandas as pd

        from workbench.selection.trust import PERTURBATIONS
        from workbench.selection.trust.perturbations import template
        from workbench.tasks.uncertainty import clustered_ratio, interval

        task, id = self._classification(texts=True), self._id_of(run)
        plain = self.outcomes(id, on_progress=on_progress)
        asked: Mapping[str, Perturbation | str] = (
            PERTURBATIONS if perturbations is None else perturbations
        )
        found = []
        for name, change in asked.items():
            if isinstance(change, str) and "{text}" not in change:
                raise ConfigError(
                    f"The template {change!r} has no {{text}}; give one such as 'Hello, {{text}}'."
                )
            function = template(change) if isinstance(change, str) else change
            other = _perturbed(task, function, seed)
            changed = self._get_engine().outcomes(id, task=other, monitor=Monitor(on_progress))
            same = np.asarray(changed["prediction"]) == np.asarray(plain["prediction"])
            share, stderr = clustered_ratio(same, np.ones(len(same)), plain["document"])
            low, high = interval(share, stderr, len(np.unique(plain["document"])))
            difference = task.difference("accuracy", changed, plain)
            found.append(
                {
                    "perturbation": name,
                    "same": share,
                    "same_low": max(0.0, low),
                    "same_high": min(1.0, high),
                    "accuracy": task.estimate("accuracy", changed).value,
                    "change": difference.value,
                    "change_low": difference.low,
                    "change_high": difference.high,
                }
            )
        return pd.DataFrame(found)

    @overload
    def _classification(self) -> TextClassification | HarnessTask: ...

    @overload
    def _classification(self, *, texts: Literal[True]) -> TextClassification: ...

    def _classification(self, *, texts: bool = False) -> TextClassification | HarnessTask:
        """Return the task if every example has one answer, with ``texts`` to texts of the user."""
        from workbench.tasks import HarnessTask, TextClassification

        task = self.task
        if isinstance(task, TextClassification):
            return task
        if isinstance(task, HarnessTask) and task.is_choice:
            if not texts and not task.is_validated:
                raise ConfigError(
                    f"The validation documents that {task.name!r} was given are not scored as the"
                    " evaluated ones, and this is set by them; use a study of a task that has a"
                    " validation or training split of its own."
                )
            if not texts:
                return task
            raise ConfigError(
                f"The prompts of {task.name!r} are the harness's, so they are not changed here; use"
                " a study of a TextClassification task."
            )
        raise ConfigError(
            f"This needs one answer per example, and {task.name!r} is"
            f" {task.kind.replace('_', ' ')}; use a study of a TextClassification task, or of a"
            " multiple-choice HarnessTask."
        )


def _per_row(column: str, values: Sequence[Any], outcomes: Outcomes, n_rows: int) -> list[str]:
    if len(values) != n_rows:
        raise ConfigError(
            f"The column {column!r} has {len(values)} values, and the evaluation part has {n_rows}"
            " rows; give one value per row, in their order."
        )
    given = list(values)
    return [str(given[i]) for i in np.asarray(outcomes["example"])]


def _perturbed(task: TextClassification, change: Perturbation, seed: int) -> TextClassification:
    """Return the task with changed texts in its evaluation part; their order stays."""
    chance = random.Random(seed)
    other = copy.copy(task)
    rows = [replace(row, text=change(row.text, chance)) for row in task.rows["evaluation"]]
    other.rows = {**task.rows, "evaluation": tuple(rows)}
    other._fingerprint = None
    other._examples = WeakKeyDictionary()
    return other
