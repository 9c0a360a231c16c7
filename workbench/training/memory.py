"""How much memory a training takes, said before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import NotEnoughMemoryError
from workbench.models.layers import find_blocks
from workbench.tasks import Task
from workbench.tensors.devices import free_memory
from workbench.training.trainable import Trainable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.tasks import Example

_VALUES_PER_TOKEN = 34
"""Float32 values that a block keeps per token for the backward pass, in units of its width
(Korthikanti et al. 2022, equation 1, with the attention's own matrices never stored)."""

_LOGITS_COPIES = 4
"""Logits, their softmax and both gradients."""

_TEACHERS_COPIES = 4
"""The teacher's logits, both sides at the temperature, and the teacher's softmax."""


def training_bytes(
    trainable: Trainable,
    task: Task,
    examples: Sequence[Example],
    batch_size: int,
    *,
    taught: bool = False,
) -> int:
    """Return the bytes that a training needs beside the model that is loaded already.

    Parameters
    ----------
    trainable : Trainable
    task : Task
    examples : sequence of Example
        What is trained on.
    batch_size : int
        Examples per step; more than fit into one pass are computed one part after the other.
    taught : bool
        Whether a teacher, which is loaded already, predicts the same texts.
    """
    model = trainable.model
    trained = sum(p.numel() for p in trainable.parameters.values())
    # Gradients, two moments and the best weights; the result is a copy of the whole model.
    fixed = 4 * (4 * trained + model.n_parameters)
    longest = max((len(e.tokens) for e in examples), default=1)
    tokens = max(longest, min(batch_size * longest, task.batch_tokens(model)))
    config = model.hf_model.config.get_text_config()
    blocks = len(find_blocks(model.hf_model))
    kept = tokens * blocks * _VALUES_PER_TOKEN * config.hidden_size
    classes = 1 if task.output.is_pooled else config.vocab_size
    copies = _LOGITS_COPIES + (_TEACHERS_COPIES if taught else 0)
    return fixed + 4 * (kept + tokens * classes * copies)


def check_training_memory(
    trainable: Trainable,
    task: Task,
    batch_size: int,
    *,
    taught: bool = False,
    available: int | None = None,
) -> int:
    """Return the bytes that a training needs, see :func:`training_bytes`.

    Raises
    ------
    NotEnoughMemoryError
        If they are not free; the message proposes what fits.
    """
    model = trainable.model
    examples = task.training_examples(model)

    def bytes_of(size: int) -> int:
        return training_bytes(trainable, task, examples, size, taught=taught)

    needed = bytes_of(batch_size)
    free = free_memory(model.device) if available is None else available
    if needed <= free:
        return needed
    size = batch_size
    while size > 1 and bytes_of(size) > free:
        size //= 2
    if bytes_of(size) <= free:
        advice = f"Give batch_size={size}, which fits"
    else:
        advice = (
            "No batch size fits: give method='lora', which trains few weights, or shorter texts"
            " (sequence_length of the task), or use a machine with more memory"
        )
    raise NotEnoughMemoryError(
        f"Training {model.source.name} with batch_size={batch_size} needs about"
        f" {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free. {advice}."
    )
