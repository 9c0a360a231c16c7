"""Per-example outcomes of one evaluation: what intervals, flips and routing are computed from."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DataError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Outcomes:
    """A table of columns of equal length, one row per example (per window for language models).

    Every evaluation has the columns ``example`` (int64, stable across models), ``document``
    (int64, the cluster that the example belongs to), ``loss`` (float64, nats, summed over the
    example's predictions), ``n_predictions`` (int64) and ``kl`` (float64, nats, KL from the dense
    model to this one summed over the predictions; NaN where no dense reference was given). Tasks
    add theirs: ``n_correct``, ``n_bytes``, ``label``, ``prediction``, ``confidence``, ``margin``
    (probability of the likeliest class minus that of the next), ``entropy`` (nats) and
    ``log_probabilities`` (float16, (examples, classes), nats). A metric says which columns it is
    computed from. Evaluations of earlier versions
    lack the last three.
    """

    columns: dict[str, NDArray[np.generic]]
    _derived: dict[Hashable, tuple[Any, Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns differ in length: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def derived(self, what: Hashable, compute: Callable[[], Value], other: object = None) -> Value:
        """Return what ``compute`` returned the first time; kept as long as the outcomes are.

        Parameters
        ----------
        what : hashable
            Names the question, with every argument that changes its answer.
        compute : callable
            Called without arguments, unless the answer is known.
        other : object, optional
            What the answer depends on besides, such as the base model's outcomes.
        """
        known = self._derived.get(what)
        if known is None or known[0] is not other:
            known = self._derived[what] = (other, compute())
        found: Value = known[1]
        return found

    @property
    def is_classified(self) -> bool:
        """Whether every example has one label and one prediction."""
        return "label" in self and "prediction" in self

    def at(self, rows: NDArray[np.int64]) -> Outcomes:
        """Return the table of some rows."""
        return Outcomes({name: column[rows] for name, column in self.columns.items()})

    def save(self, path: Path) -> None:
        """Write all columns to a compressed ``.npz`` file; nothing in it needs pickle."""
        with path.open("wb") as stream:
            np.savez_compressed(stream, **self.columns)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DataError
            If it would expand to far more than outcomes do.
        """
        with zipfile.ZipFile(path) as archive:
            check_expansion(path, sum(entry.file_size for entry in archive.infolist()))
        with np.load(path, allow_pickle=False) as file:
            return cls({name: file[name] for name in file.files})


EXPANDED_BYTES = 256 * 1024**2
"""What any compressed file may expand to; a larger one to at most :data:`EXPANSION` its size."""
EXPANSION = 50


def check_expansion(path: Path, n_bytes: int) -> None:
    """Raise DataError if a compressed file expands to what no data of a study does."""
    most = max(EXPANDED_BYTES, EXPANSION * path.stat().st_size)
    if n_bytes > most:
        raise DataError(
            f"{path} expands to more than {most / 1e6:,.0f} MB from"
            f" {path.stat().st_size / 1e6:,.1f}, so it is not read. Do not open a study that you do"
            " not trust."
        )
