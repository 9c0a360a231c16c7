"""The precisions that a plan looks at, in the workbench's canonical packing."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.recipes.schemes import IntScheme


@dataclass(frozen=True)
class Precision:
    """How weights are stored.

    Attributes
    ----------
    name : str
    scheme : IntScheme or None
        Of the matrices in the blocks; None for floats.
    float_bytes : int
        Of every other value: embeddings, head, norms, and all of them without a scheme.
    """

    name: str
    scheme: IntScheme | None = None
    float_bytes: int = 2


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("float32", float_bytes=4),
        Precision("16-bit"),
        Precision("8-bit", IntScheme(8, 128)),
        Precision("4-bit", IntScheme(4, 128)),
        Precision("3-bit", IntScheme(3, 128)),
        Precision("2-bit", IntScheme(2, 64)),
    )
}
"""By name, most bits first. Whether a model is any good at few bits is for a study to measure."""
