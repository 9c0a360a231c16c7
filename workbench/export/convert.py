"""Convert a checkpoint from one format to another without rounding its codes again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ConfigError, ExportError
from workbench.export import Exported, export_model, format_named, refusal
from workbench.export.base import Format, code_layers, layer_weights, scheme_of
from workbench.export.card import plain
from workbench.export.proof import BOUNDS, Proof, compare, judge
from workbench.fields import shown
from workbench.models.load import load_model
from workbench.models.loaded import LoadedModel
from workbench.progress import Monitor, Progress
from workbench.recipes import RTN
from workbench.tensors.weights import SuperBlockWeight
from workbench.tensors.weights import rounded as nearest
from workbench.version import __version__

TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps.",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "In 1905 he wrote four papers; the third one took him a few weeks.",
    "¿Dónde está la biblioteca? Sie ist gleich um die Ecke, neben dem Café.",
)
"""What both models read when the result is proved."""


def convert(
    source: str | os.PathLike[str] | LoadedModel,
    path: str | os.PathLike[str],
    format: str,
    *,
    requantize: RTN | None = None,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Exported:
    """Write a checkpoint in another format that holds its codes as they are.

    Nothing is calibrated and, unless ``requantize`` says so, nothing is rounded: codes, scales and
    zero points of the source are those of the result, and what was dense stays dense. What was
    written is loaded again, its codes are compared one by one and its outputs for a few texts with
    those of the source; only then does the folder appear.

    Parameters
    ----------
    source : str, path or LoadedModel
        What :func:`workbench.load_model` takes: a folder or a Hugging Face id with codes of GPTQ,
        AWQ, compressed-tensors, MLX or GGUF, or a dense one.
    path : str or path
        The folder; made with its parents.
    format : str
        A name of :data:`workbench.export.FORMATS`.
    requantize : RTN, optional
        How layers are rounded anew, to nearest, that the format cannot hold; also all layers of a
        dense source. Default: such layers are an error that names them.
    trust_remote_code : bool
        See :func:`workbench.load_model`.
    overwrite : bool
        Whether an earlier export in that place is replaced, once the new one is complete.
    on_progress : callable, optional
        Called with every :class:`workbench.progress.Progress`.

    Returns
    -------
    Exported

    Raises
    ------
    ExportError
        If the format cannot hold the codes, the folder cannot be written, or what was written is
        another model.
    ConfigError
        If there is no such format, or ``requantize`` is no :class:`workbench.RTN`.
    """
    if requantize is not None and not isinstance(requantize, RTN):
        raise ConfigError(
            f"requantize={shown(requantize)} is not accepted; give RTN(bits, group_size=...), which"
            " needs no data. Other methods are run in a study."
        )
    chosen = format_named(format)
    if isinstance(source, LoadedModel):
        model = source
        model.need_resident("Converting")
    else:
        model = load_model(source, trust_remote_code=trust_remote_code, memory="resident")
    name = model.source.name
    rounded: dict[str, str] = {}
    if requantize is not None:
        model, rounded = _requantized(model, chosen, requantize)
    reason = _obstacle(chosen, model)
    if reason is not None:
        raise ExportError(f"{name!r} cannot be converted without rounding it again: {reason}")
    made = model

    def prove(found: LoadedModel, dtype: torch.dtype) -> Proof:
        _check_codes(made, found, dtype)
        return prove_on_texts(made, found, dtype)

    def card(format: Format, n_bytes: int, proof: Proof) -> str:
        return _card(made, format, n_bytes, proof, rounded, requantize)

    return export_model(
        model,
        path,
        format,
        prove=prove,
        card=card,
        overwrite=overwrite,
        monitor=Monitor(on_progress),
    )


def _obstacle(format: Format, model: LoadedModel) -> str | None:
    """Return why a format does not hold every code of a model, None if it does."""
    reason = refusal(format, model)
    if reason is not None:
        return reason
    dense = format.kept_dense(model)
    if not dense:
        return None
    names = list(dense)
    more = f" and {len(names) - 1} more layers" if len(names) > 1 else ""
    return (
        f"{format.title} would hold {names[0]}{more} densely ({dense[names[0]]})."
        " requantize=RTN(...) rounds such layers to nearest, openly."
    )


def _requantized(
    model: LoadedModel, format: Format, step: RTN
) -> tuple[LoadedModel, dict[str, str]]:
    """Return a copy whose layers all fit, and which were rounded anew, with the reason."""
    if refusal(format, model) is None:
        rounded = dict(format.kept_dense(model))
        copy = _rounded(model, rounded, step)
        if refusal(format, copy) is None:
            return copy, rounded
    # It takes one number format, for all layers.
    coded = code_layers(model)
    same = {
        name
        for name, weight in coded.items()
        if (weight.scheme if isinstance(weight, SuperBlockWeight) else scheme_of(weight))
        == step.stored_as(weight.shape[1])
    }
    others = [name for name in {**layer_weights(model), **coded} if name not in same]
    rounded = dict.fromkeys(others, "the format has one number format for all")
    return _rounded(model, rounded, step), rounded


def _rounded(model: LoadedModel, names: Iterable[str], step: RTN) -> LoadedModel:
    copy = model.copy()
    for name in names:
        weight = model.weights.get(name)
        matrix = model.site(name).matrix.float() if weight is None else weight.dequantize()
        copy.set_weight(name, nearest(matrix, step.stored_as(matrix.shape[1])))
    return copy


def _check_codes(made: LoadedModel, found: LoadedModel, dtype: torch.dtype) -> None:
    """Raise ExportError unless every layer was read again with the values that it has."""
    for name, weight in made.weights.items():
        other = found.weights.get(name)
        if other is None or weight.kind == "pruned":
            continue
        expected, values = weight.dequantize(), other.dequantize()
        error = float((expected - values).abs().max() / expected.abs().max().clamp(min=1e-30))
        # Scales and their products are stored in the dtype of the format.
        if error > 2 * torch.finfo(dtype).eps:
            raise ExportError(
                f"{name} was read again with other values ({error:.2%} of the largest). Nothing was"
                " kept; please report this with the model and the formats."
            )


@torch.no_grad()
def prove_on_texts(made: LoadedModel, found: LoadedModel, dtype: torch.dtype) -> Proof:
    """Compare what two models give for :data:`TEXTS`; raise ExportError if one is another model."""
    pairs = []
    for text in TEXTS:
        inputs = dict(made.tokenizer(text, return_tensors="pt").to(made.device))
        inputs = {name: tensor[:, : made.max_length] for name, tensor in inputs.items()}
        pairs.append((_output(made, inputs), _output(found, inputs)))
    return judge(compare(pairs, BOUNDS[dtype]), dtype)


def _output(model: LoadedModel, inputs: dict[str, Any]) -> Tensor:
    """Return logits, or hidden states of a model without a head: (tokens or one, values)."""
    names = ("input_ids", "attention_mask")
    known: dict[str, Any] = {name: inputs[name] for name in names if name in inputs}
    if model.is_encoder_decoder:
        known["decoder_input_ids"] = known["input_ids"]
    output: Tensor = model.hf_model(**known)[0][0]
    return torch.atleast_2d(output.float())


def _card(
    model: LoadedModel,
    format: Format,
    n_bytes: int,
    proof: Proof,
    rounded: dict[str, str],
    step: RTN | None,
) -> str:
    source = model.source.name if model.source.kind == "folder" else model.source.ref
    how = "Its codes are those of the source; nothing was rounded again."
    if rounded and step is not None:
        how = (
            f"{len(rounded)} layers were rounded to nearest again ({step.label}); the other codes"
            " are those of the source."
        )
    return "\n".join(
        [
            "---",
            "tags: [compression-workbench]",
            "---",
            "",
            f"# {plain(source)}, as {format.title}",
            "",
            f"Converted by compression-workbench {__version__} from `{plain(source)}`"
            f" ({model.source.architecture}), for {format.loaders}. {how}",
            "",
            "## Load it",
            "",
            "```python" if "import " in format.loading(model) else "```",
            format.loading(model),
            "```",
            "",
            "## Proof",
            "",
            f"Loaded again, {proof.n_predictions:,} outputs are {proof.kl:.3g} nats from the"
            f" source's, and {proof.agreement:.2%} have the same top answer. The tensors take"
            f" {n_bytes:,} bytes.",
            "",
        ]
    )
