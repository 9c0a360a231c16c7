"""Exports of models that no study has measured."""

from __future__ import annotations

from pathlib import Path

from workbench.export import Exported, Proof, export_model
from workbench.models.loaded import LoadedModel


def exported(model: LoadedModel, folder: Path, format: str) -> Exported:
    """Export a model without comparing predictions: the test does that, in another program."""
    return export_model(
        model,
        folder,
        format,
        prove=lambda found, dtype: Proof(0.0, 0.0, 1.0, 1),
        card=lambda format, n_bytes, proof: "a card",
    )
