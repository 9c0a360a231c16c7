"""Other programs that run a step's configuration, each in a process of its own: the explicit table.

A step that names one in its field ``backend`` is solved there, on the study's calibration tokens,
so that both results are points of one plot.
"""

from __future__ import annotations

from workbench.methods.backends.base import Backend
from workbench.methods.backends.gptqmodel_process import GPTQModelBackend
from workbench.recipes import OWN_BACKEND, Step

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (GPTQModelBackend(),)}

__all__ = ["BACKENDS", "Backend", "backend_of"]


def backend_of(step: Step) -> Backend | None:
    """Return the program that solves a step, None for the workbench itself."""
    name = getattr(step, "backend", OWN_BACKEND)
    return None if name == OWN_BACKEND else BACKENDS[name]
