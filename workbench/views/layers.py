"""What compression did to the weights, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class LayerErrors:
    """The relative squared error of every layer's weight, by run.

    Attributes
    ----------
    layers : tuple of str
        Module names, in the model's order.
    runs : tuple of str
        Names of the runs.
    errors : tuple of tuple of (float or None)
        One row per layer, one column per run: the squared difference to the base model's weight
        over its squared norm; None where a run has no such layer, or one of another shape.
    """

    layers: tuple[str, ...]
    runs: tuple[str, ...]
    errors: tuple[tuple[float | None, ...], ...]

    @property
    def table(self) -> pd.DataFrame:
        """Index: layers, columns: runs; NaN where there is no such layer."""
        import pandas as pd

        index = pd.Index(self.layers, name="layer")
        return pd.DataFrame(self.errors, index=index, columns=list(self.runs), dtype=float)

    def plot(self) -> go.Figure:
        """Return a heatmap on a logarithmic scale."""
        from workbench.views.figures import layer_errors_figure

        return layer_errors_figure(self.table)

    def to_dict(self) -> dict[str, Any]:
        """Return the view as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerErrors:
        """Return the view that :meth:`to_dict` described."""
        rows = tuple(tuple(row) for row in data["errors"])
        return cls(tuple(data["layers"]), tuple(data["runs"]), rows)


@dataclass(frozen=True)
class WeightHistogram:
    """How one layer's weights are distributed before and after compression.

    Attributes
    ----------
    layer, run : str
    edges : tuple of float
        Of the bins, one more than there are bins.
    before, after : tuple of int
        Weights in each bin.
    """

    layer: str
    run: str
    edges: tuple[float, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row per bin: where it begins and ends, and the weights in it."""
        import pandas as pd

        return pd.DataFrame(
            {
                "from": self.edges[:-1],
                "to": self.edges[1:],
                "before": self.before,
                "after": self.after,
            }
        )

    def plot(self) -> go.Figure:
        """Return both distributions in one figure."""
        from workbench.views.figures import weight_histogram_figure

        return weight_histogram_figure(
            self.edges, self.before, self.after, layer=self.layer, run=self.run
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the view as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WeightHistogram:
        """Return the view that :meth:`to_dict` described."""
        return cls(
            data["layer"],
            data["run"],
            tuple(data["edges"]),
            tuple(data["before"]),
            tuple(data["after"]),
        )
