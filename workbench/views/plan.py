"""Will it fit: what is estimated for models, precisions and devices, as it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.selection.planning import Device, PlanRow, Precision
from workbench.selection.planning.estimates import MARGIN, plan_rows

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Plan:
    """Estimates for models, precisions and devices. Printing it says what fits.

    Attributes
    ----------
    rows : tuple of PlanRow
    context, batch : int
        Tokens of each sequence, and sequences at once.
    """

    rows: tuple[PlanRow, ...]
    context: int
    batch: int

    def table(self) -> pd.DataFrame:
        """Return one row per model, precision and device; sizes in GB (10^9 bytes)."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "model": row.model,
                    "precision": row.precision,
                    "device": row.device.name,
                    "weights_gb": row.weights_bytes / 1e9,
                    "cache_gb": row.cache_bytes / 1e9,
                    "total_gb": row.total_bytes / 1e9,
                    "usable_gb": row.device.usable_bytes / 1e9,
                    "fits": row.fits,
                    "at_most_tokens_per_s": row.tokens_per_s,
                    "context": row.context,
                    "longest_context": row.longest_context,
                }
                for row in self.rows
            ]
        )

    def plot(self) -> go.Figure:
        """Return a plotly figure: models by precisions by devices."""
        from workbench.views.figures import plan_figure

        return plan_figure(self.table(), self.context, self.batch)

    def __str__(self) -> str:
        lines = [f"Estimates, {self.batch} x {self.context:,} tokens:"]
        seen = dict.fromkeys((row.model, row.device.name) for row in self.rows)
        for model, device in seen:
            rows = [r for r in self.rows if (r.model, r.device.name) == (model, device)]
            fitting = [r for r in rows if r.fits]
            if not fitting:
                least = min(rows, key=lambda r: r.total_bytes)
                lines.append(
                    f"{model} does not fit on {device}: {least.precision} takes"
                    f" {_size(least)}{self._context(least)}."
                )
                continue
            best = max(fitting, key=lambda r: r.weights_bytes)
            text = f"{model} fits on {device} at {best.precision}: {_size(best)}"
            if best.tokens_per_s is not None:
                text += f", at most {best.tokens_per_s:,.0f} tokens/s"
            lines.append(f"{text}{self._context(best)}.")
        return "\n".join(lines)

    def _context(self, row: PlanRow) -> str:
        return "" if row.context == self.context else f", with its {row.context:,} tokens at most"


def plan(
    ref: Any,
    device: str | Device | Iterable[str | Device] | None = None,
    *,
    precisions: Iterable[str | Precision] | None = None,
    context: int = 4096,
    batch: int = 1,
    margin: float = MARGIN,
) -> Plan:
    """Estimate whether models fit on devices, from their configurations alone.

    Parameters
    ----------
    ref : str, Path, dict, PretrainedConfig, LoadedModel, or a list of these
        Such as ``"llama-3.1-8b"`` (see :func:`workbench.selection.planning.known_models`), a
        folder, a config.json or its content, or a Hugging Face id, of which no weights are
        downloaded.
    device : str, Device, or an iterable of these, optional
        Names of :func:`workbench.selection.planning.known_devices`, or devices of your own.
        Default: the whole catalogue.
    precisions : iterable of str or Precision, optional
        Default: all of :data:`workbench.selection.planning.PRECISIONS`.
    context : int
        Tokens of each sequence, prompt and answer together; at most what the model allows.
    batch : int
        Sequences at once.
    margin : float
        Share of weights and cache that is added.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If a device or precision is not known, or a number has no meaning.
    """
    rows = plan_rows(
        ref, device, precisions=precisions, context=context, batch=batch, margin=margin
    )
    return Plan(rows, context, batch)


def _size(row: PlanRow) -> str:
    """Return what a row takes of its device, with as many digits as a small model needs."""
    digits = 1 if row.total_bytes >= 1e8 else 3
    return f"{row.total_bytes / 1e9:.{digits}f} of {row.device.usable_bytes / 1e9:.1f} GB"
