"""What every configuration costs in every layer, as plain numbers: the ground predictions stand on.

A table is built once (:mod:`workbench.prediction.tabulate`) and read without torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from workbench.atomic_files import write_file
from workbench.errors import StudyError
from workbench.recipes import Pruning, Quantization, SparseGPT, Step, step_from_dict

Value = TypeVar("Value")

FORMAT_VERSION = 2
_LEAST = 1e-12
"""Nats; a cost of zero is kept as this where logarithms are taken."""


@dataclass(frozen=True)
class LayerGroup:
    """The linear layers of one shared input, as sizes.

    Attributes
    ----------
    key, block : str
    names : tuple of str
    shapes : tuple of (int, int)
        (out_features, in_features) of each layer.
    absorber : str
        What takes AWQ's input scales: ``"norm"``, the name of a linear layer, or ``""`` where they
        stay beside the group's layers.
    """

    key: str
    block: str
    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    absorber: str

    @property
    def in_features(self) -> int:
        """Inputs of every layer of the group."""
        return self.shapes[0][1]

    @property
    def n_weights(self) -> int:
        """Weights of all layers of the group."""
        return sum(n * k for n, k in self.shapes)


@dataclass(frozen=True)
class ModelSizes:
    """What the size of any compressed form of a model follows from.

    Attributes
    ----------
    itemsize : int
        Bytes of a floating-point value that is not compressed.
    other_floats : int
        Floating-point values outside of the groups and the tables.
    other_bytes : int
        Bytes of what is neither (integer buffers).
    tables : tuple of (int, int)
        Shapes of the token embeddings and the output head; one where they are tied.
    """

    itemsize: int
    other_floats: int
    other_bytes: int
    tables: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Costs:
    """Cost per group of one step.

    Attributes
    ----------
    nats : ndarray of shape (n_groups,), float64
        KL divergence per prediction to second order; NaN where it is not known.
    note : str
        How it was come by if the very step was not tabulated, for people.
    stands_in : bool
        Whether it is the cost of a step that differs in more than bits, group size or ratio.
    """

    nats: NDArray[np.float64]
    note: str = ""
    stands_in: bool = False


class CostTable:
    """Costs by step and group of layers.

    Parameters
    ----------
    groups : iterable of LayerGroup
    sizes : ModelSizes
    columns : dict of Step to ndarray, optional
    whole : dict of Step to float, optional
        Cost of steps that do not work layer by layer.
    reasons : dict of Step to str, optional
        Why a step that was tried has no costs.
    """

    def __contains__(self, step: Step) -> bool:
        """Return whether a step was tried."""
        return step in self.columns or step in self.whole or step in self.reasons

    def join(self, other: CostTable) -> None:
        """Take over what another table of the same model has and this one has not."""
        self.columns = {**other.columns, **self.columns}
        self.whole = {**other.whole, **self.whole}
        self.reasons = {**other.reasons, **self.reasons}

    columns: dict[Step, NDArray[np.float64]]
    whole: dict[Step, float]
    reasons: dict[Step, str]

    def __init__(
        self,
        groups: Iterable[LayerGroup],
        sizes: ModelSizes,
        columns: dict[Step, NDArray[np.float64]] | None = None,
        whole: dict[Step, float] | None = None,
        reasons: dict[Step, str] | None = None,
    ) -> None:
        self.groups = tuple(groups)
        self.sizes = sizes
        self.columns = dict(columns or {})
        self.whole = dict(whole or {})
        self.reasons = dict(reasons or {})
        self._derived: dict[str, tuple[tuple[int, int, int], Any]] = {}

    def derived(self, what: str, compute: Callable[[], Value]) -> Value:
        """Return what ``compute`` returned the first time, until the table has more steps."""
        state = len(self.columns), len(self.whole), len(self.reasons)
        if what not in self._derived or self._derived[what][0] != state:
            self._derived[what] = (state, compute())
        found: Value = self._derived[what][1]
        return found

    @property
    def index(self) -> dict[str, int]:
        """Position of every group by its key."""
        return {group.key: i for i, group in enumerate(self.groups)}

    def costs(self, step: Step) -> Costs | None:
        """Return a step's costs, between and beyond tabulated ones too; None for other methods.

        Bits and the logarithm of the group size (or the ratio) are interpolated linearly in the
        logarithm of the cost, layer by layer.
        """
        if step in self.columns:
            return Costs(self.columns[step])
        step = _normal(step)
        if step in self.columns:
            return Costs(self.columns[step])
        found, ignored = self._interpolated(step), ""
        if found is None:
            plain = _plain(step)
            ignored = _differing(step, plain)
            found = self.columns.get(plain)
            found = self._interpolated(plain) if found is None else found
        if found is None:
            return None
        if ignored:
            return Costs(found, f"as if {ignored} were at the default", stands_in=True)
        return Costs(found, "interpolated" if self._is_within(step) else "extrapolated")

    def _is_within(self, step: Step) -> bool:
        """Return whether steps on either side of this one are tabulated."""
        alike = [known for known in self.columns if type(known) is type(step)]
        if isinstance(step, Quantization):
            found = [known for known in alike if isinstance(known, Quantization)]
            bits = [known.bits for known in found]
            sizes = [known.group_size for known in found if known.group_size is not None]
            widest = max(group.in_features for group in self.groups)
            size = widest if step.group_size is None else step.group_size
            return min(bits) <= step.bits <= max(bits) and min(sizes) <= size <= max(sizes)
        ratios = [known.ratio for known in alike if isinstance(known, Pruning)]
        return isinstance(step, Pruning) and (
            step.ratio == 0 or min(ratios) <= step.ratio <= max(ratios)
        )

    def _interpolated(self, step: Step) -> NDArray[np.float64] | None:
        if isinstance(step, Quantization):
            return self._between_schemes(step)
        if isinstance(step, Pruning) and step.n is None:
            return self._between_ratios(step)
        return None

    def _between_schemes(self, step: Quantization) -> NDArray[np.float64] | None:
        """Interpolate in bits at each tabulated group size, then in log2 of the group size."""
        alike: dict[int, dict[int, NDArray[np.float64]]] = {}
        for known, nats in self.columns.items():
            if type(known) is type(step) and isinstance(known, Quantization) and not known.grid:
                same = replace(known, bits=step.bits, group_size=step.group_size) == step
                if same and known.group_size is not None:
                    alike.setdefault(known.group_size, {})[known.bits] = nats
        by_size = {
            size: _linear(step.bits, sorted(by_bits), by_bits)
            for size, by_bits in alike.items()
            if len(by_bits) > 1 or step.bits in by_bits
        }
        if not by_size or (len(by_size) == 1 and step.group_size not in by_size):
            return None
        sizes = sorted(by_size)
        result = np.empty(len(self.groups))
        for i, group in enumerate(self.groups):
            k = group.in_features
            wanted = k if step.group_size is None else min(step.group_size, k)
            logs = {math.log2(min(size, k)): by_size[size][i : i + 1] for size in sizes}
            result[i] = _linear(math.log2(wanted), sorted(logs), logs)[0]
        return result

    def _between_ratios(self, step: Pruning) -> NDArray[np.float64] | None:
        alike = {}
        for known, nats in self.columns.items():
            if type(known) is not type(step) or not isinstance(known, Pruning):
                continue
            if known.n is None and known.ratio > 0 and replace(known, ratio=step.ratio) == step:
                alike[math.log(known.ratio)] = nats
        if len(alike) < 2:
            return None
        if step.ratio == 0:
            return np.zeros(len(self.groups))
        return _linear(math.log(step.ratio), sorted(alike), alike)

    def save(self, path: Path) -> None:
        """Write the table as JSON; an older one of that name is replaced as a whole."""
        data = {
            "version": FORMAT_VERSION,
            "groups": [asdict(group) for group in self.groups],
            "sizes": asdict(self.sizes),
            "columns": [[s.to_dict(), _listed(nats)] for s, nats in self.columns.items()],
            "whole": [[step.to_dict(), nats] for step, nats in self.whole.items()],
            "reasons": [[step.to_dict(), reason] for step, reason in self.reasons.items()],
        }
        write_file(path, json.dumps(data, allow_nan=False))

    @classmethod
    def load(cls, path: Path) -> CostTable:
        """Read what :meth:`save` wrote.

        Raises
        ------
        StudyError
            If it is damaged or of another version.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["version"] != FORMAT_VERSION:
                raise ValueError(f"version {data['version']}")
            groups = [
                LayerGroup(
                    **{**g, "names": tuple(g["names"]), "shapes": tuple(map(tuple, g["shapes"]))}
                )
                for g in data["groups"]
            ]
            sizes = data["sizes"]
            sizes = ModelSizes(**{**sizes, "tables": tuple(map(tuple, sizes["tables"]))})
            columns = {step_from_dict(step): _array(nats) for step, nats in data["columns"]}
            whole = {step_from_dict(step): float(nats) for step, nats in data["whole"]}
            reasons = {step_from_dict(step): str(reason) for step, reason in data["reasons"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StudyError(
                f"The predictions in {path} cannot be read ({error}); delete the file, and they"
                " are made again."
            ) from error
        return cls(groups, sizes, columns, whole, reasons)


def _normal(step: Step) -> Step:
    """Return the step without the ratio that a pattern makes meaningless."""
    if isinstance(step, Pruning) and step.n is not None:
        return replace(step, ratio=0.5)
    return step


def _plain(step: Step) -> Step:
    """Return the step with every field at its default that tables do not vary."""
    if isinstance(step, Quantization):
        return type(step)(step.bits, group_size=step.group_size)
    if isinstance(step, SparseGPT) and step.bits is not None:
        return replace(step, bits=None)
    if isinstance(step, Pruning):
        return type(step)(step.ratio, n=step.n, m=step.m)
    return step


def _differing(step: Step, plain: Step) -> str:
    names = [n for n, value in asdict(step).items() if value != getattr(plain, n)]
    return " and ".join(names)


def _linear(
    x: float, knots: list[Any], values: dict[Any, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return exp of the line through the logarithms of two neighbouring knots (or the last two)."""
    if len(knots) == 1 or x in values:
        return values[x if x in values else knots[0]]
    upper = next((i for i in range(1, len(knots)) if knots[i] >= x), len(knots) - 1)
    low, high = knots[upper - 1], knots[upper]
    share = (x - low) / (high - low)
    a = np.log(np.maximum(values[low], _LEAST))
    b = np.log(np.maximum(values[high], _LEAST))
    result: NDArray[np.float64] = np.exp(a + share * (b - a))
    return result


def _listed(nats: NDArray[np.float64]) -> list[float | None]:
    return [float(f"{x:.6g}") if math.isfinite(x) else None for x in nats]


def _array(nats: list[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if x is None else x for x in nats], dtype=float)
