"""Look into models: errors and histograms of their weights, and the texts of a task's examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.errors import ConfigError
from workbench.models.classifiers import name_in
from workbench.models.layers import find_linears
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks import Task
from workbench.views.layers import WeightHistogram

LONGEST_TEXT = 400
"""Characters of an example that are shown."""


def layer_names(model: LoadedModel) -> tuple[str, ...]:
    """Return the names of the weight matrices inside the blocks, in the model's order."""
    return tuple(find_linears(model.hf_model))


@torch.no_grad()
def relative_errors(
    dense: LoadedModel, compressed: LoadedModel, *, monitor: Monitor = SILENT
) -> dict[str, float | None]:
    """Return the relative squared error of every weight matrix inside the blocks.

    Parameters
    ----------
    dense, compressed : LoadedModel
        Neither is changed.
    monitor : Monitor
        Told after every layer; may cancel.

    Returns
    -------
    dict of str to (float or None)
        None for a layer that the compressed model lacks, or has in another shape.
    """
    found: dict[str, float | None] = {}
    names = layer_names(dense)
    for number, name in enumerate(names, 1):
        before = dense.site(name).matrix
        try:
            after = compressed.site(name_in(compressed, dense, name)).matrix
        except ConfigError:
            after = before.new_empty(0)
        found[name] = None
        if after.shape == before.shape:
            found[name] = float((after - before).square().sum() / before.square().sum())
        monitor.report("layers", number, len(names), name)
    return found


@torch.no_grad()
def weight_histogram(
    dense: LoadedModel, compressed: LoadedModel, layer: str, *, run: str = "", bins: int = 101
) -> WeightHistogram:
    """Return how one layer's weights are distributed before and after compression.

    The bins span the base model's weights symmetrically; what lies outside is counted at the end.

    Raises
    ------
    ConfigError
        If a model has no such layer.
    """
    before, after = (
        model.site(name).matrix.flatten()
        for model, name in ((dense, layer), (compressed, name_in(compressed, dense, layer)))
    )
    span = float(before.abs().max()) or 1.0
    edges = torch.linspace(-span, span, bins + 1)
    counts = [torch.histc(w.clamp(-span, span), bins, -span, span) for w in (before, after)]
    return WeightHistogram(
        layer=layer,
        run=run,
        edges=tuple(edges.tolist()),
        before=tuple(map(int, counts[0].tolist())),
        after=tuple(map(int, counts[1].tolist())),
    )


def example_texts(
    task: Task, model: LoadedModel, examples: Sequence[int], part: str = "evaluation"
) -> dict[int, str]:
    """Return the texts of some examples of a part by their number, cut where they are long."""
    wanted = set(examples)
    given = task.texts(part)
    if given is not None:
        return {number: _cut(given[number]) for number in sorted(wanted)}
    found: dict[int, str] = {}
    for example in task.examples(model, part):
        if example.index in wanted:
            # What is read and what is written are two texts, with no space between.
            sides = (example.given, example.target) if model.is_encoder_decoder else ()
            texts = [
                str(model.tokenizer.decode(tokens, skip_special_tokens=True))
                for tokens in sides or (example.tokens,)
            ]
            found[example.index] = _cut(" ".join(texts))
    return found


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
