"""Every step by its name, and the step that is made of others."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import ConfigError
from workbench.fields import shown
from workbench.recipes.additions import Cast, LowRankCorrection, QuantizeEmbeddings
from workbench.recipes.base import Step, documented
from workbench.recipes.options import OWN_BACKEND
from workbench.recipes.pruning import MagnitudePruning, SparseGPT, Wanda
from workbench.recipes.quantization import AWQ, GPTQ, RTN, Quantization
from workbench.recipes.structure import DepthPruning, WidthPruning
from workbench.recipes.training import Distillation, FineTuning


@dataclass(frozen=True, init=False)
class Mixed(Step):
    """Another quantization for every shared input; :meth:`workbench.Study.fit` makes these.

    Parameters
    ----------
    steps : sequence of RTN, GPTQ or AWQ
    layers : mapping of str to int
        For the first layer of every shared input, by module name, the position in ``steps``.
        Layers that are not named stay dense.

    Raises
    ------
    ConfigError
        If a step does not quantize layer by layer, or a position does not exist.

    Examples
    --------
    >>> Mixed([GPTQ(2), GPTQ(4)], {"model.layers.0.mlp.gate_proj": 0}).label
    'Mixed GPTQ 2-bit g128'
    """

    title: ClassVar[str] = "Mixed"
    about: ClassVar[str] = "Another quantization for every layer, as a size budget allows."
    produces: ClassVar[str] = "codes"

    steps: tuple[Quantization, ...]
    layers: tuple[tuple[str, int], ...]

    def __init__(self, steps: Iterable[Quantization], layers: Mapping[str, int]) -> None:
        if not isinstance(steps, Iterable) or isinstance(steps, str):
            raise ConfigError(f"Mixed: steps={shown(steps)} is not accepted; give a list of steps.")
        if not isinstance(layers, Mapping):
            raise ConfigError(
                f"Mixed: layers={shown(layers)} is not accepted; give a mapping of module names to"
                " positions among the steps."
            )
        given, places = tuple(steps), dict(layers)
        for step in given:
            alone = getattr(step, "sequential", False) or (
                getattr(step, "backend", OWN_BACKEND) != OWN_BACKEND
            )
            if not isinstance(step, Quantization) or alone:
                raise ConfigError(
                    f"Mixed: {step!r} is not accepted; give RTN, GPTQ (not sequential) or AWQ, of"
                    " the workbench itself."
                )
        if not places:
            raise ConfigError("Mixed: layers is empty; name the layers to quantize.")
        for name, place in places.items():
            if type(name) is not str or type(place) is not int or not 0 <= place < len(given):
                raise ConfigError(
                    f"Mixed: layers has {name!r}: {place!r}; give module names with positions from"
                    f" 0 to {len(given) - 1}."
                )
        used = [step for i, step in enumerate(given) if i in places.values()]
        order = {step: i for i, step in enumerate(dict.fromkeys(used))}
        object.__setattr__(self, "steps", tuple(order))
        ordered = sorted((name, order[given[i]]) for name, i in places.items())
        object.__setattr__(self, "layers", tuple(ordered))

    @property
    def parts(self) -> tuple[Step, ...]:
        return self.steps

    @property
    def keeps(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset.intersection(*(step.keeps for step in self.steps))

    @property
    def label(self) -> str:
        counts = [sum(place == i for _, place in self.layers) for i in range(len(self.steps))]
        first = sorted(range(len(counts)), key=lambda i: -counts[i])
        names = [self.steps[i].label for i in first]
        more = f" +{len(names) - 3}" if len(names) > 3 else ""
        return f"{self.title} {', '.join(names[:3])}{more}"

    def check(self, layers: Iterable[str]) -> None:
        """Raise ConfigError if a name is not among these, the first layers of all groups."""
        known = list(layers)
        for name, _ in self.layers:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
                raise ConfigError(
                    f"Mixed: {name!r} is not the first layer of a shared input of this model; the"
                    f" nearest is {near[0]!r}. study.sensitivity().table lists them all."
                )

    def step_of(self, layer: str) -> Quantization | None:
        """Return the step of a shared input by its first layer's name, None if it stays dense."""
        place = dict(self.layers).get(layer)
        return None if place is None else self.steps[place]

    def to_dict(self) -> dict[str, Any]:
        steps = [step.to_dict() for step in self.steps]
        return {"step": "Mixed", "steps": steps, "layers": dict(self.layers)}

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> Mixed:
        if set(values) != {"steps", "layers"} or not isinstance(values["layers"], dict):
            raise ConfigError("Mixed takes steps (a list) and layers (names with positions).")
        steps = [step_from_dict(step) for step in values["steps"]]
        return cls(steps, values["layers"])  # type: ignore[arg-type]

    def code(self) -> str:
        steps = ", ".join(step.code() for step in self.steps)
        return f"wb.Mixed([{steps}], {dict(self.layers)!r})"


STEPS: dict[str, type[Step]] = {
    step.__name__: step
    for step in (
        RTN,
        GPTQ,
        AWQ,
        MagnitudePruning,
        Wanda,
        SparseGPT,
        LowRankCorrection,
        QuantizeEmbeddings,
        DepthPruning,
        WidthPruning,
        FineTuning,
        Distillation,
        Cast,
    )
}
"""Every step by its name, in the order in which forms offer them."""

for _step in STEPS.values():
    _step.__doc__ = documented(_step)


def step_from_dict(data: dict[str, Any]) -> Step:
    """Return the step that :meth:`Step.to_dict` described.

    Raises
    ------
    ConfigError
        If the name or a field is unknown, or a value is not accepted.
    """
    values = dict(data)
    name = values.pop("step", None)
    if name == Mixed.__name__:
        return Mixed.from_fields(values)
    if name not in STEPS:
        raise ConfigError(f"Unknown step {name!r}; known steps are {', '.join(STEPS)}.")
    return STEPS[name].from_fields(values)
