"""Cascades of a study's runs: small first, larger where the small one is unsure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, StudyError
from workbench.fields import listed, shown
from workbench.fields import number as check_number
from workbench.progress import Progress
from workbench.records import RunState
from workbench.selection.cost import CostModel
from workbench.selection.quality import check_conditions
from workbench.study.evaluation import classification, outcomes
from workbench.study.run import Run
from workbench.study.workspace import HasId, Workspace

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.records import RunRecord
    from workbench.selection.cascades import Cascade, Router, Signal


@dataclass(frozen=True, eq=False)
class Routed:
    """What :meth:`Study.cascade` found; printing it says it in words.

    Attributes
    ----------
    runs : tuple of Run
        The tiers, the one that is asked first at the front.
    signal : str or callable
    found : Cascade
        All numbers; see :class:`workbench.selection.cascades.Cascade`.
    cost_unit : str
        What the costs count.
    """

    runs: tuple[Run, ...]
    signal: str | Signal
    found: Cascade
    cost_unit: str

    @property
    def accuracy(self) -> float:
        """On the evaluation part, at the thresholds that were chosen on the validation part."""
        return self.found.evaluation.accuracy

    @property
    def kept(self) -> float:
        """Share of the queries that the first model answers, on the evaluation part."""
        return self.found.evaluation.shares[0]

    def router(self) -> Router:
        """Return the cascade as an object that classifies texts; it has a ``save``."""
        from workbench.selection.cascades import Router

        workspace = self.runs[0]._workspace
        task = classification(workspace, texts=True)
        models = [run.model() for run in self.runs]
        bases = []
        for run, model in zip(self.runs, models, strict=True):
            base = workspace.baseline(run.record.model)
            if base is None or base.id == run.id:
                bases.append(model)
            else:
                bases.append(workspace.engine.model(base.id))
        return Router(
            models,
            task.labels,
            self.found.validation.thresholds,
            signal=self.signal,
            sequence_length=task.options["sequence_length"],
            bases=bases,
        )

    def plot(self) -> go.Figure:
        """Return accuracy against cost over all thresholds, with the single models."""
        from workbench.views.figures import cascade_figure

        return cascade_figure(self.found, self.cost_unit)

    def table(self) -> pd.DataFrame:
        """Return the cascade, each of its models alone, and the best single model; one row each.

        Percentiles of the latency are missing where single texts were not timed: measure the runs
        again with ``study.measure(run)``.
        """
        import pandas as pd

        from workbench.selection.cascades import facts

        return pd.DataFrame(facts(self.found))

    def __str__(self) -> str:
        found, at = self.found, self.found.evaluation
        low, high = found.accuracy_interval
        text = (
            f"{' -> '.join(found.tiers)}: accuracy {at.accuracy:.1%} ({low:.1%} to {high:.1%});"
            f" the first model answers {at.shares[0]:.0%}; {at.cost:.4g} {self.cost_unit} a query"
            f" instead of {found.costs[-1]:.4g}"
        )
        if at.latency_ms is not None:
            text += f", {at.latency_ms:.3g} ms on average for a text of median length"
        if at.percentiles is not None:
            text += f"; over texts of all lengths {at.percentiles}"
        text += (
            f". The best single model at no more cost is {found.single} with"
            f" {found.single_accuracy:.1%}: the difference is {found.difference.value:+.1%}"
            f" ({found.difference.low:+.1%} to {found.difference.high:+.1%})"
        )
        ends = {
            "cascade": ", so the cascade wins.",
            "single": ", so the single model wins.",
            "neither surely": ", so neither surely wins.",
        }
        text += ends[found.winner]
        if at.cost >= found.costs[-1]:
            text += " It costs no less than asking the last model alone."
        if not found.met:
            text += " On the validation part the asked accuracy was not reached at any threshold."
        return text


def cascade(
    workspace: Workspace,
    runs: Sequence[HasId | str],
    *,
    signal: str | Signal = "confidence",
    accuracy: float = 1.0,
    cost: str | CostModel | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Routed:
    """Let a small model answer what it is sure of; see :meth:`Study.cascade`."""
    from workbench.selection.cascades import Tier, cascade, signal_named

    classification(workspace)
    accuracy = check_number("cascade", "accuracy", accuracy, above=0, maximum=2)
    found_signal = signal_named(signal)
    runs = listed("cascade", "runs", runs, "a list of two runs or more, the smallest first")
    if len(runs) < 2:
        raise ConfigError("A cascade needs a list of two runs or more, the smallest first.")
    ids = [workspace.id_of(run) for run in runs]
    if len(set(ids)) < len(ids):
        raise ConfigError(
            "A run is given twice, and asking it again changes no answer; give each run once."
        )
    known = {record.id: record for record in workspace.records()}
    records = [known[id] for id in ids]
    timed = all(_latency(record) is not None for record in records)
    kind = cost if cost is not None else "latency" if timed else "size"
    price, unit = _price(kind)
    if unit != "MB":
        check_conditions(records)
    latencies, times = _latencies(records), _times(records)
    tiers = []
    for number, record in enumerate(records):
        paid = price(record)
        if paid is None and _writes(record):
            raise StudyError(
                f"What was measured of {record.label!r} is the time of a token that it writes,"
                " not of a question that it answers; give cost='size', or a CostModel with"
                " new_tokens=1, which counts the time to read a prompt."
            )
        if paid is None:
            raise StudyError(
                f"{record.label!r} has no measured time, which its cost follows from; measure"
                " it first with study.measure(run), or give cost='size'."
            )
        tiers.append(
            Tier(
                name=_named(record, records),
                cost=paid,
                validation=outcomes(workspace, record.id, "validation", on_progress=on_progress),
                evaluation=outcomes(workspace, record.id, on_progress=on_progress),
                latency_ms=latencies[number],
                times_ms=times[number],
            )
        )
    singles = []
    for record in known.values():
        paid = price(record) if record.state is RunState.DONE else None
        if unit != "MB" and not _is_of_one_place(records[0], record):
            continue  # faster elsewhere is not cheaper here
        if paid is not None and record.id not in ids:
            singles.append((_named(record, records), paid, workspace.store.outcomes(record.id)))
    found = cascade(tiers, found_signal, accuracy=accuracy, singles=singles)
    return Routed(tuple(Run(workspace, id) for id in ids), signal, found, unit)


def _named(record: RunRecord, among: Sequence[RunRecord]) -> str:
    alone = all(other.model == record.model for other in among)
    return record.label if alone else f"{record.model}, {record.label}"


def _latency(record: RunRecord) -> float | None:
    """Return the milliseconds of one query; of a decoder there are only those of a token."""
    found = record.measurement("latency_ms")
    if found is None or _writes(record) or not math.isfinite(found.value):
        return None
    return found.value


def _writes(record: RunRecord) -> bool:
    return record.measurement("first_token_ms") is not None


def _latencies(records: Sequence[RunRecord]) -> list[float | None]:
    """Return the time of a usual text by run, None for all where times of two machines differ."""
    if not all(_is_of_one_place(records[0], record) for record in records):
        return [None for _ in records]
    return [_latency(record) for record in records]


def _is_of_one_place(one: RunRecord, other: RunRecord) -> bool:
    """Return whether the times of two runs, where both have some, can be compared."""
    found = one.measurement("latency_ms"), other.measurement("latency_ms")
    return len({m.comparable_conditions for m in found if m is not None}) < 2


def _times(records: Sequence[RunRecord]) -> list[tuple[float, ...]]:
    """Return the times of single texts by run, empty where there are none to compare.

    Runs that were measured by earlier versions have none, and times of two machines do not add up.
    """
    found = [record.measurement("query_ms") for record in records]
    if len({m.comparable_conditions for m in found if m is not None}) > 1:
        return [() for _ in found]
    return [() if m is None else m.samples for m in found]


def _price(kind: str | CostModel) -> tuple[Callable[[RunRecord], float | None], str]:
    if isinstance(kind, CostModel):

        def dollars(record: RunRecord) -> float | None:
            found: Any = kind.of(record)
            return None if found is None else found.per_1k_usd / 1000

        return dollars, "dollars"
    known = kind if isinstance(kind, str) else ""
    if known == "latency":
        return _latency, "ms"
    if known == "size":
        return lambda record: (record.size_bytes or 0) / 1e6, "MB"
    raise ConfigError(
        f"cost={shown(kind)} is not accepted; give 'latency', 'size', or"
        " CostModel(price_per_hour_usd=…)."
    )
