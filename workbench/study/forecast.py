"""A study's predictions: the table of costs, the runs it learns from, the frontier and the fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import ConfigError, StudyError
from workbench.fields import listed, number, shown, whole
from workbench.prediction.allocation import Option, allocate, options_of, path
from workbench.prediction.cost_table import CostTable
from workbench.prediction.predict import Observation, Prediction, Predictor, size_bytes
from workbench.recipes import Quantization, QuantizeEmbeddings, Step
from workbench.recipes.recipe import Recipe
from workbench.records import Metric, RunRecord, RunState
from workbench.selection.compare import pareto_front
from workbench.selection.quality import is_baseline, is_measured, value_of
from workbench.study.running.engine import PREDICTIONS_FOLDER, table_path

if TYPE_CHECKING:
    import pandas as pd

    from workbench.storage.store import Store

_TABLES = (None, QuantizeEmbeddings(8))
"""What a mixed recipe may do to the token embeddings beside the layers."""


def find_table(store: Store, model: str) -> Path | None:
    """Return the file of a base model's table of costs, None where there is none."""
    if not any(store.file(PREDICTIONS_FOLDER).glob("*.json")):
        return None  # said without torch, which the name of the file needs
    path = table_path(store, model)
    return path if path.is_file() else None


def is_complete(table: CostTable) -> bool:
    """Return whether everything that is tabulated by default is in a table."""
    from workbench.prediction.tabulate import GRID, WHOLE

    return all(step in table for step in (*GRID, *WHOLE))


MOST_MIXED = 10_000
"""Most recipes of mixed precision that a front is looked for among; each is a knapsack."""


class Forecast:
    """Predictions of one base model of a study, learned from all runs that are done by now.

    Parameters
    ----------
    table : CostTable
    records : sequence of RunRecord
        Of the study.
    model : str
        Name of the base model.
    metric : Metric

    Raises
    ------
    StudyError
        If the base model has not been evaluated.
    """

    def __init__(
        self, table: CostTable, records: Sequence[RunRecord], model: str, metric: Metric
    ) -> None:
        own = [r for r in records if r.model == model and r.state is RunState.DONE]
        baseline = next((r for r in own if is_baseline(r) and is_measured(r, metric)), None)
        if baseline is None:
            raise StudyError(
                f"The base model {model!r} has not been evaluated, so there is no level to predict"
                " from; run study.run([]) first."
            )
        found = baseline.measurement(metric.name)
        stderr = 0.0 if found is None or found.stderr is None else found.stderr
        self.table = table
        self.metric = metric
        self._known: dict[Recipe, Prediction] = {}
        self._predictor = Predictor(
            table, metric, value_of(baseline, metric), stderr, _observations(own, metric)
        )

    def predict(self, recipe: Recipe) -> Prediction:
        """Return the prediction of one recipe, which is made once."""
        if recipe not in self._known:
            self._known[recipe] = self._predictor.predict(recipe)
        return self._known[recipe]

    def frontier(self, n_mixed: int = 12) -> tuple[Prediction, ...]:
        """Return the predicted Pareto front of KL divergence and size, from the smallest on.

        Parameters
        ----------
        n_mixed : int
            Mixed-precision recipes to look at, evenly spread over the sizes.
        """
        n_mixed = whole("frontier", "n_mixed", n_mixed, minimum=0, maximum=MOST_MIXED)
        recipes = [Recipe((step,)) for step in self.table.columns]
        recipes += [Recipe((step,)) for step in self.table.whole]
        mixed = self._mixed(n_mixed)
        for extra in self._tables():
            recipes += [_with(step, extra) for step in (*self.table.columns, *mixed)]
        found = [self.predict(recipe) for recipe in dict.fromkeys(recipes)]
        known = [p for p in found if p.kl is not None and p.size_bytes is not None]
        front = pareto_front(
            [p.size_bytes or 0 for p in known], [p.kl or 0.0 for p in known], higher_is_better=False
        )
        kept = [p for p, on_front in zip(known, front, strict=True) if on_front]
        return tuple(sorted(kept, key=lambda p: p.size_bytes or 0))

    def candidates(
        self, *, size_bytes: float | None = None, bits_per_weight: float | None = None
    ) -> list[Prediction]:
        """Return recipes within a budget, the best first by predicted divergence.

        Parameters
        ----------
        size_bytes : float, optional
            Of the whole stored model.
        bits_per_weight : float, optional
            Mean stored bits of the compressed layers, scales and zero points included.

        Raises
        ------
        ConfigError
            If not exactly one budget is given, or nothing fits.
        """
        if (size_bytes is None) == (bits_per_weight is None):
            raise ConfigError(
                f"size_bytes={shown(size_bytes)}, bits_per_weight={shown(bits_per_weight)}: give"
                " one of the two, such as bits_per_weight=3."
            )
        no = "no such budget"
        size_bytes = number("fit", "size_bytes", size_bytes, none_means=no, above=0, unit="bytes")
        bits_per_weight = number("fit", "bits_per_weight", bits_per_weight, none_means=no, above=0)
        least = sum(group[0].n_bytes for group in self._options(None) if group)
        extras = self._tables() if size_bytes is not None else [None]
        budgets = {extra: self._budget(size_bytes, bits_per_weight, extra) for extra in extras}
        fitting = {extra: budget for extra, budget in budgets.items() if budget >= least}
        if not fitting and bits_per_weight is not None:
            bits = 8 * least / sum(group.n_weights for group in self.table.groups)
            raise ConfigError(
                f"bits_per_weight={bits_per_weight} is less than the layers take at the fewest bits"
                f" that are tabulated; give at least {bits + 0.005:.2f}."
            )
        if not fitting:
            short = least - max(budgets.values())
            raise ConfigError(
                f"size_bytes={size_bytes} is less than the model takes at the fewest bits that are"
                f" tabulated; give at least {int(size_bytes or 0) + short:,}, or start from a"
                " smaller model, such as with WidthPruning."
            )
        recipes = [r for extra, budget in fitting.items() for r in self._fitting(budget, extra)]
        found = [self.predict(recipe) for recipe in dict.fromkeys(recipes)]
        known = [p for p in found if p.kl is not None]
        if not known:
            raise ConfigError("No quantization of this model has predicted costs to choose by.")
        return sorted(known, key=lambda p: (p.kl, p.size_bytes or 0))

    def sensitivity(self, steps: Iterable[Step] | None = None) -> pd.DataFrame:
        """Return the predicted divergence in nats by layer group and step.

        Parameters
        ----------
        steps : iterable of Step, optional
            Default: every tabulated step that works layer by layer.

        Returns
        -------
        DataFrame
            Index: the first layer of every shared input; columns: labels of the steps.
        """
        import pandas as pd

        wanted: list[Step] = list(self.table.columns)
        if steps is not None:
            wanted = listed("sensitivity", "steps", steps, "a list of steps, such as [GPTQ(4)]")
        columns = {}
        for step in wanted:
            if not isinstance(step, Step):
                raise ConfigError(f"sensitivity: {shown(step)} is no step; give such as GPTQ(4).")
            costs = self.table.costs(step)
            if costs is None:
                raise ConfigError(
                    f"{step.label} has no costs by layer; tabulated are"
                    f" {', '.join(s.label for s in self.table.columns)}."
                )
            label = f"{step.label} ({costs.note})" if costs.note else step.label
            if label in columns:
                raise ConfigError(f"{label} is given twice, or as steps that have the same costs.")
            columns[label] = costs.nats
        index = pd.Index([group.key for group in self.table.groups], name="layers")
        return pd.DataFrame(columns, index=index)

    def _tables(self) -> list[QuantizeEmbeddings | None]:
        return [extra for extra in _TABLES if extra is None or extra in self.table.whole]

    def _budget(
        self, whole: float | None, bits: float | None, extra: QuantizeEmbeddings | None
    ) -> int:
        """Return the bytes that are left for the layers."""
        n_weights = sum(group.n_weights for group in self.table.groups)
        if bits is not None:
            return int(bits * n_weights / 8)
        assert whole is not None
        recipe = Recipe() if extra is None else Recipe((extra,))
        dense = size_bytes(self.table, recipe)
        assert dense is not None
        return int(whole) - (dense - n_weights * self.table.sizes.itemsize)

    def _fitting(self, budget: int, extra: QuantizeEmbeddings | None) -> list[Recipe]:
        """Return the knapsack's solution, one per family too, and the uniform recipes that fit."""
        families = {type(step) for step in self.table.columns if isinstance(step, Quantization)}
        mixed = [allocate(self.table, self._options(None), budget)]
        for family in families:
            options = self._options(family)
            if all(options) and sum(group[0].n_bytes for group in options) <= budget:
                mixed.append(allocate(self.table, options, budget))
        limit = self._size_of_layers(budget)
        uniform = [
            step
            for step in self.table.columns
            if isinstance(step, Quantization)
            and (size := size_bytes(self.table, Recipe((step,)))) is not None
            and size <= limit
        ]
        return [_with(step, extra) for step in (*mixed, *uniform)]

    def _size_of_layers(self, budget: int) -> int:
        dense = size_bytes(self.table, Recipe())
        assert dense is not None
        n_weights = sum(group.n_weights for group in self.table.groups)
        return dense - n_weights * self.table.sizes.itemsize + budget

    def _options(self, family: type[Quantization] | None) -> list[list[Option]]:
        steps = [step for step in self.table.columns if isinstance(step, Quantization)]
        return options_of(self.table, [s for s in steps if family is None or type(s) is family])

    def _mixed(self, count: int) -> list[Step]:
        options = self._options(None)
        if not options or any(not group for group in options):
            return []
        least = sum(group[0].n_bytes for group in options)
        most = sum(group[-1].n_bytes for group in options)
        budgets = np.geomspace(least, most, count + 2)[1:-1]
        return list(path(self.table, options, [int(b) for b in budgets]))


def _with(step: Step, extra: QuantizeEmbeddings | None) -> Recipe:
    return Recipe((step,)) if extra is None else Recipe((step, extra))


def _observations(records: Iterable[RunRecord], metric: Metric) -> list[Observation]:
    found = []
    for record in records:
        kl = record.measurement("kl")
        if is_baseline(record) or kl is None or not is_measured(record, metric):
            continue
        stderr = kl.stderr or 0.0
        found.append(Observation(record.recipe, kl.value, stderr, value_of(record, metric)))
    return found
