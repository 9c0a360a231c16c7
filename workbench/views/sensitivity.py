"""How much each group of layers costs under each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How much each group of layers costs under each step; predicted, in nats.

    Attributes
    ----------
    table : DataFrame
        Index: the first layer of every shared input; columns: labels of the steps.
    """

    table: pd.DataFrame

    def plot(self) -> go.Figure:
        """Return the table as a heatmap, on a logarithmic colour scale."""
        from workbench.views.figures import sensitivity_figure

        return sensitivity_figure(self.table)

    def _repr_html_(self) -> str:
        return str(self.table.to_html(float_format="{:.2g}".format, border=0))
