"""Measure what a model costs where it runs: bytes, memory, milliseconds and joules.

``timing`` repeats and summarises, ``generation`` and ``classification`` say what is timed,
``memory`` asks a fresh process, ``energy`` reads meters where there are any, ``conditions`` says
where it was measured, ``model`` puts it together.
"""

from workbench.runtime.measure.environment import conditions
from workbench.runtime.measure.model import measure_model

__all__ = ["conditions", "measure_model"]
