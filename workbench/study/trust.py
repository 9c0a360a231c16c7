"""When to believe a run: calibration, confident mistakes, flips, slices, consistency."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from workbench.errors import ConfigError, StudyError
from workbench.fields import instance, listed, shown, whole
from workbench.fields import number as check_number
from workbench.fields import seed as check_seed
from workbench.progress import Monitor, Progress
from workbench.study.evaluation import classification, outcomes
from workbench.study.run import Run
from workbench.study.workspace import HasId, Workspace

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.selection.trust import Flips, Perturbation, Reliability, Slice, TrustView
    from workbench.tasks import TextClassification
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


def trust(
    workspace: Workspace,
    run: HasId | str,
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
    threshold: float = 0.9,
    bins: int = 15,
    on_progress: Callable[[Progress], None] | None = None,
) -> Trust:
    """Say when a run's answers can be believed; see :meth:`Study.trust`."""
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

    task = classification(workspace)
    threshold = check_number("trust", "threshold", threshold, minimum=0, maximum=1)
    bins = whole("trust", "bins", bins, maximum=10_000)
    instance("trust", "columns", columns, Mapping, "a mapping of names to values, one per row")
    record = workspace.record_of(run)
    id, base = record.id, workspace.baseline(record.model)
    if base is None:
        raise StudyError(f"The base model {record.model!r} was not evaluated yet: study.run([]).")
    found = outcomes(workspace, id, on_progress=on_progress)
    dense = outcomes(workspace, base, on_progress=on_progress)
    temperature = fit_temperature(outcomes(workspace, id, "validation", on_progress=on_progress))
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
        groups[column] = [row.more[number][1] or "(missing)" for row in rows]
    for column, values in (columns or {}).items():
        groups[column] = _per_row(column, values, found, len(task.rows["evaluation"]))

    def said(outcomes: Outcomes, chosen: np.ndarray) -> Any:
        codes = np.minimum(np.asarray(outcomes["prediction"])[chosen], len(task.labels))
        return names[codes]

    kinds = {"lost": flips.lost, "gained": flips.gained, "other": flips.other}
    changed = np.concatenate(list(kinds.values()))
    return Trust(
        run=Run(workspace, id),
        dense=Run(workspace, base.id),
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
    workspace: Workspace,
    run: HasId | str,
    perturbations: Mapping[str, Perturbation | str] | None = None,
    *,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> pd.DataFrame:
    """Change the texts and see whether the answers stay; see :meth:`Study.consistency`."""
    import pandas as pd

    from workbench.selection.trust import PERTURBATIONS
    from workbench.selection.trust.perturbations import template
    from workbench.tasks.uncertainty import clustered_ratio, interval

    task, id = classification(workspace, texts=True), workspace.id_of(run)
    seed = check_seed("consistency", seed)
    what = "a mapping of names to functions or templates"
    instance("consistency", "perturbations", perturbations, Mapping, what)
    plain = outcomes(workspace, id, on_progress=on_progress)
    asked: Mapping[str, Perturbation | str] = (
        PERTURBATIONS if perturbations is None else perturbations
    )
    found = []
    for name, change in asked.items():
        if isinstance(change, str) and "{text}" not in change:
            raise ConfigError(
                f"The template {shown(change)} has no {{text}}; give one such as 'Hello, {{text}}'."
            )
        if not isinstance(change, str) and not callable(change):
            raise ConfigError(
                f"The perturbation {shown(change)} is not accepted; give a function of a text and a"
                " random.Random, or a template such as 'Hello, {text}'."
            )
        function = template(change) if isinstance(change, str) else change
        other = _perturbed(task, function, seed)
        changed = workspace.engine.outcomes(id, task=other, monitor=Monitor(on_progress))
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


def _per_row(column: str, values: Sequence[Any], outcomes: Outcomes, n_rows: int) -> list[str]:
    values = listed("trust", f"columns[{column!r}]", values, "one value per row")
    if len(values) != n_rows:
        raise ConfigError(
            f"The column {column!r} has {len(values)} values, and the evaluation part has {n_rows}"
            " rows; give one value per row, in their order."
        )
    return [str(values[i]) for i in np.asarray(outcomes["example"])]


def _perturbed(task: TextClassification, change: Perturbation, seed: int) -> TextClassification:
    """Return the task with changed texts in its evaluation part; their order stays."""
    chance = random.Random(seed)
    other = copy.copy(task)
    rows = [replace(row, text=change(row.text, chance)) for row in task.rows["evaluation"]]
    for row, before in zip(rows, task.rows["evaluation"], strict=True):
        if not isinstance(row.text, str):
            raise ConfigError(
                f"The perturbation {shown(change)} made {shown(row.text)} of {shown(before.text)};"
                " it must return a text."
            )
    other.rows = {**task.rows, "evaluation": tuple(rows)}
    other._fingerprint = None
    other._examples = WeakKeyDictionary()
    return other
