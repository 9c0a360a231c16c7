"""How a sentence encoder makes one vector of a text, as its folder of sentence-transformers says.

Such a folder has ``modules.json`` (Transformer, Pooling, Normalize), ``1_Pooling/config.json``,
``sentence_bert_config.json`` (most tokens) and ``config_sentence_transformers.json`` (prompts).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from workbench.errors import UnsupportedArchitectureError

MODULES = "modules.json"
_PROMPTS = "config_sentence_transformers.json"
_LENGTH = "sentence_bert_config.json"
_POOLINGS = ("mean", "cls", "max", "lasttoken")
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_KNOWN = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class SentenceEncoding:
    """How a text becomes a vector; vectors are compared by their cosine.

    Attributes
    ----------
    pooling : {"mean", "cls", "max", "lasttoken"}
        What of the last hidden states is taken; padding never counts.
    max_tokens : int or None
        Longer texts are cut; None: at what the model takes.
    prompts : dict of str to str
        What stands before a text, by what the text is for, such as ``"query"``.
    default_prompt : str
        What stands before a text that is for nothing named.
    """

    pooling: str = "mean"
    max_tokens: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""

    def prompt(self, use: str) -> str:
        """Return the prompt of texts for a use, ``""`` where it has none.

        The default prompt is that of texts for nothing named, as ``encode`` has it.
        """
        return self.prompts.get(use, "") if use else self.default_prompt


def read_sentence_files(folder: Path) -> dict[str, str]:
    """Return the text of the files that say how vectors are made, by their path in the folder.

    Empty for a folder that is none of sentence-transformers. Modules that hold weights (Dense) are
    named by ``modules.json``; they are refused where a vector is asked for, not here.
    """
    if not (folder / MODULES).is_file():
        return {}
    found = [MODULES, _PROMPTS, _LENGTH]
    found += [f"{path}/config.json" for path in _paths((folder / MODULES).read_text("utf-8"))]
    return {
        name: (folder / name).read_text(encoding="utf-8")
        for name in found
        if (folder / name).is_file()
    }


def sentence_encoding(name: str, files: Mapping[str, str]) -> SentenceEncoding:
    """Return how a model makes vectors; of one without such files, the mean over the tokens.

    Parameters
    ----------
    name : str
        Of the model, for messages.
    files : mapping
        What :func:`read_sentence_files` returned, among others.

    Raises
    ------
    UnsupportedArchitectureError
        If a vector is made in a way that is not known here.
    """
    if MODULES not in files:
        return SentenceEncoding()
    for module in _read(name, MODULES, files):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in _KNOWN:
            raise UnsupportedArchitectureError(
                f"{name!r} makes its vectors with a module {kind!r} ({MODULES}), which is not known"
                f" here; known are {', '.join(_KNOWN)}. Give a model without it."
            )
    poolings = [
        _read(name, f"{path}/config.json", files)
        for path in _paths(files[MODULES], "Pooling")
        if f"{path}/config.json" in files
    ]
    pooling = _pooling(poolings[0]) if poolings else "mean"
    if pooling not in _POOLINGS:
        raise UnsupportedArchitectureError(
            f"{name!r} pools its tokens by {pooling!r}, which is not known here; known are"
            f" {', '.join(_POOLINGS)}. Give another model, or another 1_Pooling/config.json."
        )
    if prompts_apart := [p for p in poolings if p.get("include_prompt") is False]:
        raise UnsupportedArchitectureError(
            f"{name!r} leaves its prompts out of the mean (include_prompt is false in"
            f" {len(prompts_apart)} file), which is not known here; give another model."
        )
    length = _read(name, _LENGTH, files).get("max_seq_length") if _LENGTH in files else None
    told = _read(name, _PROMPTS, files) if _PROMPTS in files else {}
    prompts = {str(k): str(v) for k, v in (told.get("prompts") or {}).items() if v}
    default = prompts.get(str(told.get("default_prompt_name")), "")
    most = length if isinstance(length, int) and length > 0 else None
    return SentenceEncoding(pooling, most, prompts, default)


def pool(hidden: Tensor, attention_mask: Tensor | None, pooling: str) -> Tensor:
    """Return one vector per example.

    Parameters
    ----------
    hidden : Tensor of shape (examples, tokens, hidden_size)
    attention_mask : Tensor of shape (examples, tokens), optional
        One where a token is real; None where no example is padded.
    pooling : {"mean", "cls", "max", "lasttoken"}

    Returns
    -------
    Tensor of shape (examples, hidden_size), float32
    """
    hidden = hidden.float()
    if pooling == "cls":
        return hidden[:, 0]
    if attention_mask is None:
        if pooling == "max":
            return hidden.amax(1)
        return hidden[:, -1] if pooling == "lasttoken" else hidden.mean(1)
    weight = attention_mask.to(hidden.dtype)[..., None]
    if pooling == "max":
        return hidden.masked_fill(weight == 0, -torch.inf).amax(1)
    if pooling == "lasttoken":
        places = torch.arange(hidden.shape[1], device=hidden.device)
        last = (attention_mask * places).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def _pooling(config: Mapping[str, Any]) -> str:
    told = config.get("pooling_mode")
    if isinstance(told, str):
        return told
    chosen = [how for flag, how in _FLAGS.items() if config.get(flag)]
    return " and ".join(chosen) or "mean"


def _read(name: str, file: str, files: Mapping[str, str]) -> Any:
    try:
        found = json.loads(files[file])
    except (ValueError, RecursionError) as error:
        raise UnsupportedArchitectureError(
            f"{file} of {name!r} is damaged ({error}); copy the folder again."
        ) from error
    if not isinstance(found, list if file == MODULES else dict):
        raise UnsupportedArchitectureError(f"{file} of {name!r} is none of sentence-transformers.")
    return found


def _paths(modules: str, kind: str = "") -> list[str]:
    """Return the folders of the modules; only plain names within the model's own folder count."""
    try:
        listed = json.loads(modules)
        named = [
            (str(m.get("type", "")), str(m["path"])) for m in listed if m.get("path") is not None
        ]
    except (ValueError, RecursionError, TypeError, AttributeError):
        return []
    plain = [(type_, path) for type_, path in named if PurePosixPath(path).name == path != ".."]
    return [path for type_, path in plain if type_.endswith(kind) and "\\" not in path]
