"""Write a model in formats that other programs load: one format per file, and their table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import ConfigError, ExportError
from workbench.export.awq import AWQCheckpoint
from workbench.export.base import Format, code_layers
from workbench.export.compressed_tensors import IntQuantized, PackQuantized
from workbench.export.gguf import GGUF
from workbench.export.gptq import GPTQCheckpoint, GPTQVersion1, GPTQVersion2
from workbench.export.hf import HuggingFace
from workbench.export.mlx import MLX
from workbench.export.onnx import ONNX
from workbench.export.proof import Proof
from workbench.export.publish import MARK, PROGRAM, check_target, published
from workbench.fields import shown
from workbench.handover import push_folder, zip_folder
from workbench.models.loaded import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.version import __version__

if TYPE_CHECKING:
    import torch

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        HuggingFace(),
        GPTQCheckpoint(),
        GPTQVersion1(),
        GPTQVersion2(),
        AWQCheckpoint(),
        PackQuantized(),
        IntQuantized(),
        GGUF(),
        MLX(),
        ONNX(),
    )
}
"""Every format by its name, in the order in which they are offered."""

CARD = "README.md"

PROBE = (
    "The classifier of this run reads the mean of all hidden states of a frozen model, which no"
    " class of transformers does. It is written into a file of its own, which workbench.load_model"
    " reads; other programs load the model without it and do not give your labels. Fine-tune or"
    " distil first: what is trained has the form that AutoModelForSequenceClassification loads."
)
"""What is said before a classifier is exported that only the workbench puts on."""

__all__ = [
    "FORMATS",
    "ExportOffer",
    "Exported",
    "Format",
    "Proof",
    "export_bytes",
    "export_model",
    "format_named",
    "nearest_format",
    "offers",
    "refusal",
]


@dataclass(frozen=True)
class ExportOffer:
    """Whether a model can be exported in a format, and how large it would be.

    Attributes
    ----------
    format : str
        What ``run.export(format=...)`` takes.
    title : str
    loaders : str
        The programs that load it.
    size_bytes : int or None
        Bytes of its tensors; None if it is refused.
    refusal : str or None
        Why not, and the nearest format that can hold the model.
    kept_dense : dict of str to str
        Compressed layers that it would hold densely, by name, and why.
    is_uncompressed : bool
        Whether it stores the values of a model that has codes, which undoes the compression.
    note : str
        What other programs would not find in it, and what helps; empty if they find all.
    """

    format: str
    title: str
    loaders: str
    size_bytes: int | None
    refusal: str | None
    kept_dense: dict[str, str] = field(default_factory=dict)
    is_uncompressed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes
    ----------
    path : Path
        The folder.
    format : str
    bytes_on_disk : int
        Of all files.
    tensor_bytes : int
        Of the tensors in them.
    predicted_bytes : int
        What was predicted for ``tensor_bytes`` before anything was written.
    largest_difference : float
        Of any logit from the model that was exported, on evaluation inputs.
    proof : Proof
        More about that.
    kept_dense : dict of str to str
        Compressed layers that were written densely, by name, and why.
    """

    path: Path
    format: str
    bytes_on_disk: int
    tensor_bytes: int
    predicted_bytes: int
    largest_difference: float
    proof: Proof
    kept_dense: dict[str, str] = field(default_factory=dict)

    def zip(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> Path:
        """Write the folder as one zip file; see :func:`workbench.handover.zip_folder`."""
        return zip_folder(self.path, path, overwrite=overwrite)

    def push(self, repo: str, *, private: bool = True) -> str:
        """Upload it to a hub; see :func:`workbench.handover.push_folder`."""
        return push_folder(self.path, repo, private=private)

    def __str__(self) -> str:
        dense = ""
        if self.kept_dense:
            first = next(iter(self.kept_dense.values()))
            dense = f" {len(self.kept_dense)} compressed layers are dense in it (first: {first})."
        return (
            f"Exported to {self.path} ({self.format}, {self.bytes_on_disk / 1e6:.2f} MB); loaded"
            f" again, its predictions are {self.proof.kl:.2g} nats from the run's, and"
            f" {self.proof.agreement:.1%} have the same top answer.{dense}"
        )


def format_named(name: str) -> Format:
    """Return the format of this name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in FORMATS:
        known = ", ".join(map(repr, FORMATS))
        raise ConfigError(f"format={shown(name)} is not accepted; give one of {known}.")
    return FORMATS[name]


def nearest_format(model: LoadedModel, other_than: str) -> str | None:
    """Return the format that holds a model in the fewest bytes, other than the one named.

    A dense model is nearest to a dense checkpoint, which rounds nothing.
    """
    if not code_layers(model) and other_than != HuggingFace.name:
        return HuggingFace.name
    sizes = {
        name: format.predicted_bytes(model)
        for name, format in FORMATS.items()
        if name != other_than and format.obstacle(model) is None
    }
    return min(sizes, key=lambda name: sizes[name], default=None)


def refusal(format: Format, model: LoadedModel) -> str | None:
    """Return why a format cannot hold a model, and which one can; None if it can."""
    if model.streaming is not None:
        return (
            f"{model.source.name} is streamed from its files, and an export is written from memory."
            ' Load it with memory="resident" (in dtype="bfloat16" where memory is short), give it'
            " to the study by study.add_model(...), and export then."
        )
    obstacle = format.obstacle(model)
    if obstacle is None:
        return None
    nearest = nearest_format(model, format.name)
    advice = f" The nearest format that can hold it is {nearest!r}." if nearest else ""
    return f"{format.title} cannot hold this model: {obstacle}.{advice}"


def offers(model: LoadedModel) -> tuple[ExportOffer, ...]:
    """Return for every format whether the model can be exported in it, and its size."""
    model, found = model.as_measured(), []
    for name, format in FORMATS.items():
        reason = refusal(format, model)
        size = format.predicted_bytes(model) if reason is None else None
        dense = format.kept_dense(model) if reason is None else {}
        undone = name == HuggingFace.name and bool(code_layers(model))
        note = PROBE if reason is None and model.head is not None else ""
        offer = ExportOffer(name, format.title, format.loaders, size, reason, dense, undone, note)
        found.append(offer)
    return tuple(found)


def export_bytes(model: LoadedModel, format: str) -> int:
    """Return the bytes that all tensors of an export will have.

    Raises
    ------
    ExportError
        If the format cannot hold the model.
    ConfigError
        If there is no such format.
    """
    chosen, model = format_named(format), model.as_measured()
    reason = refusal(chosen, model)
    if reason is not None:
        raise ExportError(reason)
    return chosen.predicted_bytes(model)


def export_model(
    model: LoadedModel,
    path: str | os.PathLike[str],
    format: str,
    *,
    prove: Callable[[LoadedModel, torch.dtype], Proof],
    card: Callable[[Format, int, Proof], str],
    overwrite: bool = False,
    monitor: Monitor = SILENT,
) -> Exported:
    """Write a model to a folder, load it again, and put the folder in place if it is the same.

    Parameters
    ----------
    model : LoadedModel
        Not changed.
    path : str or path
        The folder; made with its parents.
    format : str
        A key of :data:`FORMATS`.
    prove : callable
        Given the model that was loaded again and the dtype that the format rounds dense tensors
        to; raises if it is another one.
    card : callable
        Given the format, the tensors' bytes and the proof; returns the text of the model card.
    overwrite : bool
        Whether an export that is there is replaced.
    monitor : Monitor
        Reports the stages "export" and "prove"; may cancel, and then nothing is left.

    Raises
    ------
    ExportError
        If the format cannot hold the model, the folder cannot be written, the disk is full, or
        what was written gives other logits. What was there before is still there.
    ConfigError
        If there is no such format.
    """
    chosen, model = format_named(format), model.as_measured()
    predicted = export_bytes(model, format)
    target = check_target(path, predicted, overwrite=overwrite)
    if model.source.kind == "folder" and os.path.realpath(model.source.ref) == str(target):
        raise ExportError(
            f"{target} holds the base model, without which no run of this study can be loaded"
            " again. Give another path."
        )
    with published(target, overwrite=overwrite) as folder:
        chosen.write(model, folder, monitor)
        found = chosen.reload(model, folder)
        proof = prove(found, chosen.dense_dtype(model))
        del found  # its tensors may be mapped from the files that are renamed now
        n_bytes = chosen.tensor_bytes(folder)
        (folder / CARD).write_text(card(chosen, n_bytes, proof), encoding="utf-8")
        about = {
            "format": format,
            PROGRAM: __version__,
            "tensor_bytes": n_bytes,
            "predicted_bytes": predicted,
            "kept_dense": chosen.kept_dense(model),
            "proof": asdict(proof),
        }
        (folder / MARK).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        monitor.report("export", 1, 1, "complete")
    return Exported(
        target,
        format,
        size,
        n_bytes,
        predicted,
        proof.largest_difference,
        proof,
        chosen.kept_dense(model),
    )
