"""Load a model from anywhere, and save one so that it can be loaded again."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import Tensor

from workbench.errors import (
    ConfigError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    TokenizerMissingError,
    UnsupportedArchitectureError,
)
from workbench.loaded import (
    ClassificationHead,
    LoadedModel,
    ModelSource,
    is_causal,
    put_weight,
    tokenizer_fingerprint,
)
from workbench.sources import (
    ACCEPTED,
    Source,
    check_vocabulary,
    checkpoint_files,
    find_source,
    read_config,
    read_headers,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "ClassificationHead",
    "LoadedModel",
    "ModelSource",
    "load_model",
    "put_weight",
    "save_model",
    "tokenizer_fingerprint",
]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
EXTRAS = "workbench.json"
HEAD = "workbench_head.safetensors"


def load_model(
    ref: str | os.PathLike[str] | PreTrainedModel,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerBase | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model and its tokenizer.

    Parameters
    ----------
    ref : str, path or PreTrainedModel
        ``"demo"`` (the bundled model), a folder, a Hugging Face id, or a live transformers model,
        which is copied and never changed.
    tokenizer : str, path or tokenizer, optional
        Where the tokenizer is, if not with the model; needed for a live model.
    device : str or torch.device
        ``"auto"``: the first CUDA device if there is one, else the CPU.
    dtype : str or torch.dtype
        What to compute in: ``"float32"``, ``"float16"`` or ``"bfloat16"``. ``"auto"``: float32 on
        the CPU, elsewhere the dtype that the model is stored in.
    revision : str, optional
        Branch, tag or commit of a Hugging Face model.
    trust_remote_code : bool
        Allow the model's own Python code to run; for models that you trust only.

    Returns
    -------
    LoadedModel

    Raises
    ------
    ModelNotFoundError, HubUnreachableError
        If the model is not there, or the network is not.
    TokenizerMissingError
        If no tokenizer comes with the model and none is given.
    UnsupportedArchitectureError
        If it is no text decoder or encoder, has no safetensors, or is quantized already.
    NotEnoughMemoryError
        If it is estimated not to fit; nothing has been loaded then.
    ConfigError
        If an option has a value that is not accepted.
    """
    target = _device(device)
    compute = _dtype(dtype)
    if not isinstance(ref, (str, os.PathLike)):
        return _load_live(ref, tokenizer, target, compute)
    source = find_source(ref, revision, code=trust_remote_code)
    raw = read_config(source)
    config = _config(source, raw, trust_remote_code)
    architecture = _architecture(source.ref, config)
    text = _tokenizer(source if tokenizer is None else tokenizer, config, trust_remote_code)
    auto = _auto_class(architecture)

    expected = _dtype(getattr(config, "dtype", None) or "float32") or torch.float32
    n_parameters = _count_parameters(auto, config, architecture, trust_remote_code)
    wanted = compute or (torch.float32 if target.type == "cpu" else expected)
    check_memory(source.ref, n_parameters, wanted, expected, target)

    files = checkpoint_files(source)
    stored = _stored_dtype(source.ref, read_headers(files))
    wanted = compute or (torch.float32 if target.type == "cpu" else stored)
    hf_model = _read(auto, source, wanted, trust_remote_code).to(target)  # type: ignore[arg-type]
    extras = _read_extras(source.folder)
    model = LoadedModel(
        hf_model=_frozen(hf_model),
        tokenizer=text,
        source=ModelSource(
            source.kind,
            source.ref,
            source.revision,
            architecture,
            str(extras.get("name", source.name)),
        ),
        stored_dtype=DTYPES.get(str(extras.get("stored_dtype")), stored),
        head=_read_head(source.folder, extras),
    )
    return model


def save_model(model: LoadedModel, folder: str | os.PathLike[str]) -> Path:
    """Write a dense checkpoint, its tokenizer and its head, for :func:`load_model` to read back.

    Tensors are written in the stored dtype where that loses nothing, else in the dtype that the
    model computes in; what is read back has the same fingerprint. Compressed weights are written
    as their dense copies.

    Parameters
    ----------
    model : LoadedModel
        Not changed.
    folder : str or path
        Made if it is not there.

    Returns
    -------
    Path
        The folder.
    """
    from safetensors.torch import save_file

    path = Path(folder).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    state = {
        name: _lossless(tensor, model.stored_dtype)
        for name, tensor in model.hf_model.state_dict().items()
    }
    with _quiet():
        model.hf_model.save_pretrained(path, state_dict=state)
    model.tokenizer.save_pretrained(path)
    extras: dict[str, Any] = {
        "version": 1,
        "name": model.source.name,
        "stored_dtype": str(model.stored_dtype).removeprefix("torch."),
    }
    if model.head is not None:
        tensors = {"weight": model.head.weight, "bias": model.head.bias}
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path / HEAD)
        extras |= {"labels": list(model.head.labels), "pooling": model.head.pooling}
    (path / EXTRAS).write_text(json.dumps(extras, indent=1), encoding="utf-8")
    return path


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device (the machine's memory for all but CUDA)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def check_memory(
    name: str,
    n_parameters: int,
    dtype: torch.dtype,
    stored: torch.dtype,
    device: torch.device,
) -> None:
    """Raise NotEnoughMemoryError if a model is estimated not to fit on a device.

    On the CPU the checkpoint is counted too, because it is in memory while it is converted.
    """
    needed = n_parameters * dtype.itemsize
    if device.type != "cuda":
        needed += n_parameters * stored.itemsize
    free = free_memory(device)
    if needed <= free:
        return
    half = ', dtype="bfloat16" (half the memory of float32)' if dtype.itemsize > 2 else ""
    other = ', device="cpu"' if device.type == "cuda" else ""
    raise NotEnoughMemoryError(
        f"{name!r} needs about {needed / 1e9:.1f} GB to load ({n_parameters / 1e6:,.0f} M"
        f" parameters in {str(dtype).removeprefix('torch.')}), and {free / 1e9:.1f} GB are free on"
        f" {device}. Use a smaller model{half}{other}, another machine, or close other programs"
        " and notebooks."
    )


def _load_live(
    ref: object,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerBase | None,
    device: torch.device,
    compute: torch.dtype | None,
) -> LoadedModel:
    from transformers import PreTrainedModel

    if not isinstance(ref, PreTrainedModel):
        hint = ""
        if hasattr(ref, "merge_and_unload"):
            hint = " Merge the adapter first: model.merge_and_unload()."
        elif hasattr(ref, "hf_model"):
            hint = " It is a loaded model already; use its .copy()."
        raise ConfigError(f"A {type(ref).__name__} is not accepted.{hint} {ACCEPTED}")
    architecture = type(ref).__name__
    given = f"The live {architecture}"
    _refuse_unsupported(given, ref.config)
    if any(p.device.type == "meta" for p in ref.parameters()):
        raise UnsupportedArchitectureError(
            f"{given} has parameters without data (device 'meta'); load it without offloading."
        )
    if tokenizer is None:
        raise TokenizerMissingError(
            f"{given} comes without a tokenizer. Give it: load_model(model, tokenizer), a live"
            " tokenizer, a folder or a Hugging Face id."
        )
    text = _tokenizer(tokenizer, ref.config, False)
    sizes: Counter[torch.dtype] = Counter()
    for parameter in ref.parameters():
        if parameter.is_floating_point():
            sizes[parameter.dtype] += parameter.numel()
    stored = sizes.most_common(1)[0][0]
    wanted = compute or (torch.float32 if device.type == "cpu" else stored)
    name = (getattr(ref.config, "_name_or_path", "") or architecture).rstrip("/\\")
    check_memory(name, sum(sizes.values()), wanted, stored, device)
    hf_model: Any = copy.deepcopy(ref)
    hf_model = hf_model.to(device=device, dtype=wanted)
    short = name.replace("\\", "/").split("/")[-1]
    source = ModelSource("live", name, None, architecture, short)
    return LoadedModel(_frozen(hf_model), text, source, stored)


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    model.eval()
    model.requires_grad_(False)
    return model


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    accepted = "give 'auto', 'cpu', 'cuda' (or 'cuda:1'), or 'mps'"
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device={device!r} is not accepted; {accepted}.") from error
    if target.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device={str(device)!r} is not supported; {accepted}.")
    count = torch.cuda.device_count() if target.type == "cuda" else 1
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (target.index or 0) < count,
        "mps": torch.backends.mps.is_available(),
    }
    if not usable[target.type]:
        raise ConfigError(
            f"device={str(device)!r} is not available on this machine; use 'auto' or 'cpu'."
        )
    return target


def _dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The dtype that was asked for, None for ``"auto"``."""
    if dtype == "auto":
        return None
    found = DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ConfigError(
            f"dtype={dtype!r} is not accepted; give 'auto', {', '.join(map(repr, DTYPES))} or the"
            " torch.dtype of that name."
        )
    return found


def _config(source: Source, raw: dict[str, object], trust: bool) -> PretrainedConfig:
    from transformers import AutoConfig

    if "auto_map" in raw and not trust and raw.get("model_type") not in _known_types():
        raise UnsupportedArchitectureError(
            f"{source.ref!r} brings its own Python code for the architecture"
            f" {raw.get('model_type')!r}, and such code is not run unasked. If you trust it, pass"
            " trust_remote_code=True; else use a model whose architecture transformers knows."
        )
    try:
        return AutoConfig.from_pretrained(
            source.folder, trust_remote_code=trust, local_files_only=True
        )
    except Exception as error:
        import transformers

        given = raw.get("model_type")
        if given is not None and (trust or given in _known_types()):
            what = f"its config.json is not accepted ({type(error).__name__}: {error})"
        elif given is None:
            what = "its config.json names no model_type"
        else:
            what = f"transformers {transformers.__version__} does not know model_type {given!r}"
        raise UnsupportedArchitectureError(
            f"{source.ref!r} cannot be loaded: {what}. Accepted are text decoders (Llama, OPT,"
            " GPT-2 and similar) and encoders (BERT and similar); a newer transformers may know"
            " more."
        ) from error


def _known_types() -> set[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return set(CONFIG_MAPPING_NAMES)


def _refuse_unsupported(given: str, config: PretrainedConfig) -> None:
    kind = config.model_type
    accepted = "Accepted are text decoders (Llama, OPT, GPT-2 …) and encoders (BERT …)"
    if getattr(config, "quantization_config", None) is not None:
        raise UnsupportedArchitectureError(
            f"{given} is quantized already; give the original model, so that the workbench can"
            " compress it and compare."
        )
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedArchitectureError(
            f"{given} is an encoder-decoder ({kind}), which is not supported yet. {accepted}."
        )
    seeing = any(hasattr(config, name) for name in ("vision_config", "audio_config", "image_size"))
    if seeing or not hasattr(config.get_text_config(), "vocab_size"):
        raise UnsupportedArchitectureError(
            f"{given} is not a text model ({kind}: images or sound), which is not supported yet."
            f" {accepted}."
        )


def _architecture(ref: str, config: PretrainedConfig) -> str:
    _refuse_unsupported(repr(ref), config)
    names = getattr(config, "architectures", None)
    if not names:
        raise UnsupportedArchitectureError(
            f"The config.json of {ref!r} names no architecture. Add the class the checkpoint was"
            ' saved from, such as "architectures": ["LlamaForCausalLM"] or ["BertModel"].'
        )
    return str(names[0])


def _auto_class(architecture: str) -> Any:
    import transformers

    if is_causal(architecture):
        return transformers.AutoModelForCausalLM
    if architecture.endswith("ForSequenceClassification"):
        return transformers.AutoModelForSequenceClassification
    return transformers.AutoModel


def _count_parameters(auto: Any, config: PretrainedConfig, name: str, trust: bool) -> int:
    """Count parameters on the meta device, where they take no memory; tied ones once."""
    try:
        with torch.device("meta"), _quiet():
            empty = auto.from_config(copy.deepcopy(config), trust_remote_code=trust)
    except ValueError as error:
        raise UnsupportedArchitectureError(
            f"The architecture {name!r} (model_type {config.model_type!r}) is not one that"
            f" transformers' {auto.__name__} can build: {str(error).splitlines()[0][:200]}"
        ) from error
    return sum(parameter.numel() for parameter in empty.parameters())


def _read(auto: Any, source: Source, dtype: torch.dtype, trust: bool) -> PreTrainedModel:
    """Read the weights; a pooler that the checkpoint lacks is dropped, not made up."""
    try:
        with _quiet():
            model, info = auto.from_pretrained(
                source.folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust,
                output_loading_info=True,
            )
    except (ValueError, RuntimeError, OSError) as error:
        raise UnsupportedArchitectureError(
            f"{source.ref!r} was found, but transformers could not load its weights: {error}"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing and all(name.startswith("pooler.") for name in missing):
        model.pooler = None
        missing = []
    if missing:
        raise UnsupportedArchitectureError(
            f"The checkpoint of {source.ref!r} lacks {len(missing)} weights that"
            f" {type(model).__name__} needs (first: {missing[0]}); they would be random numbers."
            " Use a complete checkpoint, or name the right class in config.json's architectures."
        )
    return model


def _stored_dtype(ref: str, headers: dict[str, tuple[str, int]]) -> torch.dtype:
    sizes: Counter[str] = Counter()
    for dtype, n_bytes in headers.values():
        sizes[dtype] += n_bytes
    if not sizes or sizes.most_common(1)[0][0] not in STORED:
        kinds = ", ".join(sizes) or "nothing"
        raise UnsupportedArchitectureError(
            f"{ref!r} stores its weights as {kinds}; accepted are {', '.join(STORED)}. Give the"
            " original, unquantized model."
        )
    return STORED[sizes.most_common(1)[0][0]]


def _tokenizer(given: Any, config: PretrainedConfig, trust: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    if isinstance(given, PreTrainedTokenizerBase):
        return copy.deepcopy(given)
    if not isinstance(given, (str, os.PathLike, Source)):
        raise ConfigError(
            f"tokenizer: a {type(given).__name__} is not accepted; give a folder, a Hugging Face"
            " id or a live transformers tokenizer."
        )
    source = given if isinstance(given, Source) else find_source(given)
    check_vocabulary(source)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source.folder, local_files_only=True, trust_remote_code=trust
            )
    except Exception as error:
        raise TokenizerMissingError(
            f"The tokenizer of {source.ref!r} cannot be read ({type(error).__name__}: {error})."
            " Give another one: load_model(…, tokenizer=<folder, id or live tokenizer>)."
        ) from error
    rows = config.get_text_config().vocab_size
    if not 0 < tokenizer.vocab_size <= rows:
        raise ConfigError(
            f"The tokenizer of {source.ref!r} has {tokenizer.vocab_size:,} tokens and the model"
            f" embeds {rows:,}; they do not belong together. Give the model's own tokenizer."
        )
    return tokenizer


def _lossless(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    smaller = tensor.to(dtype)
    return smaller if torch.equal(smaller.to(tensor.dtype), tensor) else tensor


def _read_extras(folder: Path) -> dict[str, Any]:
    path = folder / EXTRAS
    if not path.is_file():
        return {}
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def _read_head(folder: Path, extras: dict[str, Any]) -> ClassificationHead | None:
    from safetensors.torch import load_file

    if "labels" not in extras:
        return None
    if not (folder / HEAD).is_file():
        raise ModelNotFoundError(f"{str(folder)!r} lacks its head ({HEAD}); copy it again.")
    tensors = load_file(folder / HEAD)
    return ClassificationHead(
        tensors["weight"], tensors["bias"], tuple(extras["labels"]), extras["pooling"]
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' load reports and bars; what matters is checked and raised here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
