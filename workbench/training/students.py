"""Students: some of a model's blocks, with their weights copied."""

from __future__ import annotations

from workbench.errors import ConfigError
from workbench.models.loaded import LoadedModel
from workbench.models.structure import architecture_of, block_names, check_uniform, drop_blocks


def kept_blocks(n_teacher: int, n_student: int, keep: str) -> list[int]:
    """Return which of the teacher's blocks a student begins with, ascending.

    Parameters
    ----------
    n_teacher, n_student : int
    keep : {"spread", "first", "last"}
        ``"spread"`` includes the first and the last block, as DistilBERT does (Sanh et al. 2019).

    Examples
    --------
    >>> kept_blocks(12, 6, "spread")
    [0, 2, 4, 7, 9, 11]
    """
    if keep == "first":
        return list(range(n_student))
    if keep == "last":
        return list(range(n_teacher - n_student, n_teacher))
    if n_student == 1:
        return [0]
    return [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]


def student_of(model: LoadedModel, n_blocks: int, keep: str) -> tuple[LoadedModel, list[int]]:
    """Return a model of some of the blocks, and which these are.

    Parameters
    ----------
    model : LoadedModel
        Dense in the blocks; not changed.
    n_blocks : int
        Blocks of the student, at most as many as there are.
    keep : {"spread", "first", "last"}

    Raises
    ------
    ConfigError
        If there are not so many blocks.
    UnsupportedArchitectureError
        If the blocks of this architecture cannot be taken apart.
    """
    architecture = architecture_of(model)
    check_uniform(model, architecture)
    n = len(block_names(model))
    if n_blocks > n:
        raise ConfigError(
            f"Distillation: blocks={n_blocks} is not accepted for {model.source.name}, which has"
            f" {n} blocks here; give 1 to {n}."
        )
    kept = kept_blocks(n, n_blocks, keep)
    if architecture.keeps_first:
        kept = sorted({0, *kept[1:]})  # the first block is built unlike the others
    if len(kept) == n:
        return model, kept
    return drop_blocks(model, [i for i in range(n) if i not in kept]), kept
