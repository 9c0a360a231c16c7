"""Run a compressed model from its codes: packed layers on torch's int4 and int8 kernels.

``kernels`` wraps torch's operators with their guards, ``linear`` has the modules, ``model`` makes
the copy of a model and reports what runs how, ``decode`` is a short path for one token at a time.
"""

from workbench.runtime.packed.decode import Decoder, why_not_lean
from workbench.runtime.packed.model import (
    LayerForm,
    PackedModel,
    PackReport,
    pack_model,
)

__all__ = [
    "Decoder",
    "LayerForm",
    "PackReport",
    "PackedModel",
    "pack_model",
    "why_not_lean",
]
