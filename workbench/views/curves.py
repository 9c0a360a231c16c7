"""How trainings went: the loss by step, and that of the validation part, of several runs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.records import RunRecord
from workbench.views.run_names import run_names

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class LossCurve:
    """One training.

    Attributes
    ----------
    run, name : str
        Id, and for people; raw.
    loss, validation : tuple of (int, float)
        Step and loss, smoothed; and after every epoch that of the validation part.
    is_live : bool
        Whether it goes on.
    """

    run: str
    name: str
    loss: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...] = ()
    is_live: bool = False


@dataclass(frozen=True)
class LossCurves:
    """Several trainings, to be overlaid."""

    curves: tuple[LossCurve, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row per point: ``run``, ``name``, ``part``, ``step`` and ``loss``."""
        import pandas as pd

        rows = [
            (curve.run, curve.name, part, step, loss)
            for curve in self.curves
            for part, points in (("training", curve.loss), ("validation", curve.validation))
            for step, loss in points
        ]
        return pd.DataFrame(rows, columns=["run", "name", "part", "step", "loss"])

    def plot(self) -> go.Figure:
        """Return a plotly figure: training solid, validation dashed with points."""
        from workbench.views.figures.curves import curves_figure

        return curves_figure(
            (curve.name + " (running)" * curve.is_live, curve.loss, curve.validation)
            for curve in self.curves
        )


def loss_curves(records: Iterable[RunRecord]) -> LossCurves:
    """Return how the last training of each run went; runs without one are left out."""
    chosen = [record for record in records if record.facts.get("loss_curve")]
    names = run_names(chosen)
    curves = []
    for record in chosen:
        with contextlib.suppress(TypeError, ValueError, KeyError, IndexError, AttributeError):
            loss = _points((p["step"], p["loss"]) for p in record.facts["loss_curve"])
            told = record.facts["training"][-1].get("validation", ())
            validation = _points((p[0], p[1]) for p in told)
            curves.append(LossCurve(record.id, names[record.id], loss, validation))
    return LossCurves(tuple(curves))


def _points(found: Iterable[tuple[Any, Any]]) -> tuple[tuple[int, float], ...]:
    pairs = ((int(step), float(loss)) for step, loss in found)
    return tuple((step, loss) for step, loss in pairs if math.isfinite(loss))
