"""Load a model from anywhere, and save one so that it can be loaded again."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from workbench.atomic_files import aside_of, remove_leftovers
from workbench.errors import (
    ConfigError,
    ModelNotFoundError,
    TokenizerMissingError,
    UnsupportedArchitectureError,
)
from workbench.models.architectures import (
    architecture_of,
    auto_class,
    class_of,
    count_parameters,
    is_causal,
    load_config,
    parameter_names,
    quiet,
    refuse_unsupported,
)
from workbench.models.expert_names import expert_rows
from workbench.models.layers import find_blocks
from workbench.models.loaded import (
    ClassificationHead,
    LoadedModel,
    ModelSource,
    put_weight,
    tensor_identity,
    tokenizer_fingerprint,
)
from workbench.models.placement import (
    DTYPES,
    check_memory,
    choose_dtype,
    choose_memory,
    fits_comfortably,
)
from workbench.models.precision import loading_dtypes, wider_than
from workbench.models.readers import (
    Codes,
    check_method,
    find_gguf,
    quantization_of,
    read_codes,
    read_gguf,
)
from workbench.models.rescaling import keep_weights
from workbench.models.sentence_encoding import read_sentence_files
from workbench.models.sources import (
    ACCEPTED,
    Source,
    check_config,
    check_vocabulary,
    checkpoint_files,
    find_source,
    read_config,
    read_headers,
    read_pickled,
)
from workbench.models.streaming import Streaming
from workbench.models.trusted_code import code_key, is_trusted, trust
from workbench.tensors.devices import choose_device, compute_dtype, is_cpu
from workbench.tensors.memory_mapped import read_tensors
from workbench.tensors.weights import QuantizedWeight

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "ClassificationHead",
    "LoadedModel",
    "ModelSource",
    "load_model",
    "put_weight",
    "save_model",
    "save_tokenizer",
    "tokenizer_fingerprint",
]

STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
EXTRAS = "workbench.json"
HEAD = "workbench_head.safetensors"
BESIDE = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "audio_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
)
"""Files of a processor for images and sound."""


def load_model(
    ref: str | os.PathLike[str] | PreTrainedModel,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerBase | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    memory: str = "auto",
    memory_budget: float | None = None,
) -> LoadedModel:
    """Load a model and its tokenizer.

    Parameters
    ----------
    ref : str, path or PreTrainedModel
        ``"demo"`` (the bundled model), a folder, a Hugging Face id, or a live transformers model,
        which is copied and never changed. A live image model is taken too, to calibrate and
        compress; there is no task for these.
    tokenizer : str, path or tokenizer, optional
        Where the tokenizer is, if not with the model; needed for a live model that reads text.
    device : str or torch.device
        ``"cpu"``, ``"cuda"``, a further GPU such as ``"cuda:1"``, or ``"mps"``. ``"auto"``: the
        first CUDA device if there is one, else the CPU.
    dtype : str or torch.dtype
        What to compute in: ``"float32"``, ``"float16"`` or ``"bfloat16"``. ``"auto"``: float32 on
        the CPU, elsewhere the dtype that the model is stored in.
    revision : str, optional
        Branch, tag or commit of a Hugging Face model.
    trust_remote_code : bool
        Allow the model's own Python code to run; for models that you trust only.
    memory : str
        ``"resident"``: in memory. ``"streamed"``: the weights stay in their safetensors files,
        which must not be changed meanwhile, and a block is in memory only while it is used; on
        the CPU. ``"auto"``: streamed if the model and one copy of it would not fit and it can be.
    memory_budget : float, optional
        Bytes that ``"auto"`` may take; default: what is free.

    Returns
    -------
    LoadedModel
        Of a compressed checkpoint (GPTQ, AWQ, compressed-tensors, MLX, GGUF) with its codes in
        ``weights`` and their dense values in the model. Experts in MXFP4 (gpt-oss) become bfloat16,
        which holds them exactly.

    Raises
    ------
    ModelNotFoundError, HubUnreachableError
        If the model is not there, or the network is not.
    TokenizerMissingError
        If no tokenizer comes with the model and none is given.
    UnsupportedArchitectureError
        If it is no text decoder, encoder or encoder-decoder, has neither safetensors nor
        ``pytorch_model.bin`` with tensors alone, or is compressed in a format that
        :mod:`workbench.models.readers` does not know.
    NotEnoughMemoryError
        If it is estimated not to fit; nothing has been loaded then.
    ConfigError
        If an option has a value that is not accepted.
    """
    target = choose_device(device)
    compute = choose_dtype(dtype)
    kept = choose_memory(memory, memory_budget)
    if not isinstance(ref, (str, os.PathLike)):
        if kept == "streamed":
            raise ConfigError(
                "A live model is in memory already; give load_model its folder or Hugging Face id"
                ' for memory="streamed".'
            )
        return _load_live(ref, tokenizer, target, compute)
    source = find_source(ref, revision, code=trust_remote_code)
    if trust_remote_code:
        trust(code_key(source))
    raw = read_config(source)
    check_config(source, raw, trust=trust_remote_code)
    config = load_config(source, raw, trust_remote_code)
    packed = quantization_of(config)  # what is built is dense; the codes are kept beside it
    if packed is not None:
        check_method(source.ref, packed)
    architecture = architecture_of(source.ref, config)
    text = _tokenizer(source if tokenizer is None else tokenizer, config, trust_remote_code)
    auto = auto_class(architecture)

    expected = DTYPES.get(str(getattr(config, "dtype", None)).removeprefix("torch."), torch.float32)
    n_parameters = count_parameters(auto, config, architecture, trust_remote_code)
    wanted = compute or compute_dtype(target, expected)
    comfortable = fits_comfortably(n_parameters, wanted, target, memory_budget)
    obstacle = None
    if kept == "streamed" or (kept == "auto" and not comfortable):
        obstacle = _why_not_streamed(auto, source, config, target)
        if kept == "streamed" and obstacle is not None:
            raise UnsupportedArchitectureError(
                f'{source.ref!r} cannot be streamed: {obstacle}. Give memory="resident".'
            )
    streamed = kept == "streamed" or (kept == "auto" and not comfortable and obstacle is None)
    if not streamed:
        check_memory(source.ref, n_parameters, wanted, target)

    codes, pickled = None, False
    file = find_gguf(source.folder)
    if file is not None:
        codes = read_gguf(file, parameter_names(auto, config), config)
    else:
        files = checkpoint_files(source)
        pickled = any(path.suffix == ".bin" for path in files)
        if pickled:
            headers = {n: _header(t) for path in files for n, t in read_pickled(path).items()}
        else:
            headers = read_headers(files)
        if packed is not None:
            codes = read_codes(source.ref, packed, _all_tensors(files))
            if not codes.weights and codes.dense.keys() == headers.keys():
                raise UnsupportedArchitectureError(
                    f"The config.json of {source.ref!r} says that it is quantized as"
                    f" {packed['quant_method']!r}, and its tensors hold no codes. Use the whole"
                    " checkpoint; if it is a dense model, remove quantization_config."
                )
    if codes is not None:
        headers = {name: _header(tensor) for name, tensor in codes.dense.items()}
    stored = _stored_dtype(source.ref, headers)
    wanted = compute or compute_dtype(target, stored)
    # A streamed model is mapped as it is stored; its blocks are converted when they are used.
    read_as = stored if streamed else wanted
    hf_model = _read(auto, source, read_as, trust_remote_code, config, codes, pickled=pickled)
    extras = _read_extras(source.folder)
    kept_as = DTYPES.get(str(extras.get("stored_dtype")), stored)
    # Where all tensors are stored alike none of them can be wider, which saves a look at each.
    mixed = len({dtype for dtype, _ in headers.values() if dtype in STORED}) > 1
    model = LoadedModel(
        hf_model=_frozen(hf_model) if streamed else _placed(hf_model, target),
        tokenizer=text,
        source=ModelSource(
            source.kind,
            source.ref,
            source.revision,
            architecture,
            str(extras.get("name", source.name)),
            trust_remote_code,
        ),
        stored_dtype=kept_as,
        head=_read_head(source.folder, extras),
        wide=wider_than(hf_model, kept_as) if mixed else frozenset(),
        beside=_read_beside(source.folder),
    )
    if codes is not None:
        _put_codes(model, codes)
    if streamed:
        model.streaming = Streaming(wanted, tuple(find_blocks(hf_model)), model.weights)
        model.streaming.install(hf_model)
    return model


def _why_not_streamed(
    auto: Any, source: Source, config: PretrainedConfig, device: torch.device
) -> str | None:
    """Return why a model's weights cannot stay in its files, None if they can."""
    if not is_cpu(device):
        return f"blocks are read one at a time on the CPU only, and the device is {device}"
    if find_gguf(source.folder) is not None or quantization_of(config) is not None:
        return "it is compressed already, and its codes are unpacked when it is loaded"
    if config.model_type == "rwkv":
        return "transformers divides its weights in place when they run"
    files = checkpoint_files(source)
    if any(path.suffix == ".bin" for path in files):
        return "its weights are pickled, which cannot be mapped; save it as safetensors"
    headers = read_headers(files)
    dtypes = {dtype for dtype, _ in headers.values() if dtype in STORED}
    if len(dtypes) > 1:
        return f"its tensors are stored in several dtypes ({', '.join(sorted(dtypes))})"
    if any(".experts." in n and n not in headers for n in parameter_names(auto, config)):
        return "its experts are stored one by one and are stacked when they are loaded"
    return None


def load_again(
    source: ModelSource,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerBase | None = None,
    *,
    device: str | torch.device,
    dtype: str | torch.dtype,
    memory: str = "auto",
) -> LoadedModel:
    """Load a model from where another one came from, which was not live.

    A tokenizer that is read from elsewhere runs no code, whatever the model does.

    Raises
    ------
    ConfigError
        If it needs Python code that is not trusted in this process, whatever a study says.
    """
    if source.trust_remote_code:
        found = find_source(source.ref, source.revision, code=True)
        if not is_trusted(code_key(found)):
            raise ConfigError(
                f"{source.ref!r} runs Python code of its own, which is not done without your word"
                " in this session. Read it, and if you trust it, load the model here and give it to"
                f" the study: load_model({source.ref!r}, trust_remote_code=True)."
            )
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = _read_tokenizer(find_source(tokenizer), False)
    return load_model(
        source.ref,
        tokenizer,
        device=device,
        dtype=dtype,
        revision=source.revision,
        trust_remote_code=source.trust_remote_code,
        memory=memory,
    )


def save_model(
    model: LoadedModel,
    folder: str | os.PathLike[str],
    *,
    lossless: bool = True,
    whole: bool = False,
) -> Path:
    """Write a dense checkpoint, its tokenizer and its head, for :func:`load_model` to read back.

    Tensors are written in the stored dtype where that loses nothing, else in the dtype that the
    model computes in; what is read back has the same fingerprint. Compressed weights are written
    as their dense copies, so the checkpoint of a compressed model is as large as the dense one,
    and read back it is another model, a dense one; a study keeps the packed codes.

    Parameters
    ----------
    model : LoadedModel
        Not changed.
    folder : str or path
        Made if it is not there.
    lossless : bool
        False: every tensor is rounded to what it is stored as, see
        :meth:`LoadedModel.stored_as`.
    whole : bool
        Whether a head that the model's class has is written too where another one replaces it.
        Default: only the head whose answers are the model's, see :meth:`LoadedModel.as_measured`.

    Returns
    -------
    Path
        The folder.
    """
    model.need_resident("Saving a dense checkpoint")
    if not whole:
        model = model.as_measured()
    path = Path(folder).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = {}
    smaller: dict[tuple[int, int], Tensor] = {}  # tied tensors stay one tensor
    for name, tensor in model.hf_model.state_dict().items():
        key = tensor_identity(tensor)
        smaller.setdefault(key, _smaller(tensor, model.stored_as(name), lossless))
        state[name] = smaller[key]
    remove_leftovers(path, ".saving-*")
    # Written aside and moved: the model may be reading from the very files that are replaced.
    aside = aside_of(path / "saving")
    aside.mkdir()
    try:
        with quiet():
            model.hf_model.save_pretrained(aside, state_dict=state)
        if not lossless:  # transformers notes what it computes in
            _set_dtype(aside / "config.json", model.stored_dtype)
        if model.tokenizer is not None:
            save_tokenizer(model.tokenizer, aside)
        write_extras(model, aside)
        for file in aside.iterdir():
            file.replace(path / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer as it was loaded.

    Calls leave how they cut and padded in a fast tokenizer, and ``tokenizer.json`` would state it
    for ever: whoever loads it would read the first few tokens of every text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        tokenizer.save_pretrained(folder)
        return
    now = (backend.truncation, backend.padding)
    _set_limits(backend, *getattr(tokenizer, _LIMITS, (None, None)))
    try:
        tokenizer.save_pretrained(folder)
    finally:
        _set_limits(backend, *now)
    _name_for_all(folder / "tokenizer_config.json")


def _name_for_all(path: Path) -> None:
    """Give a tokenizer without a class of its own the name that transformers 4 knows, too.

    Optimum and other programs still bring that version, and refuse ``TokenizersBackend``.
    """
    about = json.loads(path.read_text(encoding="utf-8"))
    if about.get("tokenizer_class") == "TokenizersBackend":
        about["tokenizer_class"] = "PreTrainedTokenizerFast"
        text = json.dumps(about, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


_LIMITS = "_workbench_limits"
"""Attribute of a fast tokenizer: truncation and padding as they were when it was loaded."""


def _set_limits(backend: Any, truncation: Any, padding: Any) -> None:
    if truncation is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(**truncation)
    if padding is None:
        backend.no_padding()
    else:
        backend.enable_padding(**padding)


def write_extras(model: LoadedModel, folder: Path) -> None:
    """Write what a checkpoint says beside weights, configuration and tokenizer.

    That is its name, stored dtype and head, how its processor reads images and sound, and how a
    sentence encoder makes its vectors.
    """
    extras: dict[str, Any] = {
        "version": 1,
        "name": model.source.name,
        "stored_dtype": str(model.stored_dtype).removeprefix("torch."),
    }
    if model.head is not None:
        model.head.save(folder / HEAD)
        extras["head"] = HEAD
    (folder / EXTRAS).write_text(json.dumps(extras, indent=1), encoding="utf-8")
    for name, text in model.beside.items():
        if not (folder / name).exists():  # what the tokenizer wrote is newer
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


def _set_dtype(path: Path, dtype: torch.dtype) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


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
    refuse_unsupported(given, ref.config, architecture, live=True)
    if ref.main_input_name not in ("input_ids", "pixel_values"):
        raise UnsupportedArchitectureError(
            f"{given} reads {ref.main_input_name!r}; accepted are models that read text"
            " ('input_ids') or images ('pixel_values')."
        )
    if any(p.device.type == "meta" for p in ref.parameters()):
        raise UnsupportedArchitectureError(
            f"{given} has parameters without data (device 'meta'); load it without offloading."
        )
    reads_text = ref.main_input_name == "input_ids"
    if tokenizer is None and reads_text:
        raise TokenizerMissingError(
            f"{given} comes without a tokenizer. Give it: load_model(model, tokenizer), a live"
            " tokenizer, a folder or a Hugging Face id."
        )
    text: Any = _tokenizer(tokenizer, ref.config, False) if reads_text else None
    whole = (
        is_causal(architecture)
        or architecture.endswith("ForSequenceClassification")
        or not reads_text
        or getattr(ref.config, "is_encoder_decoder", False)
    )
    kept: Any = ref if whole else ref.base_model  # as from a folder: no MaskedLM head
    sizes: Counter[torch.dtype] = Counter()
    for parameter in kept.parameters():
        if parameter.is_floating_point():
            sizes[parameter.dtype] += parameter.numel()
    stored = sizes.most_common(1)[0][0]
    wanted = compute or compute_dtype(device, stored)
    name = (getattr(ref.config, "_name_or_path", "") or architecture).rstrip("/\\")
    check_memory(name, sum(sizes.values()), wanted, device)
    short = name.replace("\\", "/").split("/")[-1]
    source = ModelSource("live", name, None, architecture, short)
    own = copy.deepcopy(kept)
    wide = wider_than(own, stored) if len(sizes) > 1 else frozenset()
    _cast(own, wanted)
    return LoadedModel(_placed(own, device), text, source, stored, wide=wide)


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give every stored tensor the dtype that transformers' own loading in ``dtype`` gives it.

    Buffers that are not stored (rotary frequencies) keep the precision that they are made in.
    """
    dtypes = loading_dtypes(model, dtype)
    tensors = {**model.state_dict(keep_vars=True), **dict(model.named_buffers())}
    for name in dtypes.keys() & tensors.keys():
        tensors[name].data = tensors[name].data.to(dtypes[name])
        tensors[name].grad = None


def _placed(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Move a model that is ours, in place, and make it read-only for training.

    It is copied out of its files: one that is mapped and cut off by another program would end the
    process.
    """
    for tensor in model.state_dict(keep_vars=True).values():
        tensor.data = tensor.data.clone()
    keep_weights(model)
    model.to(device)  # type: ignore[arg-type]
    return _frozen(model)


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    model.eval()
    model.requires_grad_(False)
    return model


def _read(
    auto: Any,
    source: Source,
    dtype: torch.dtype,
    trust: bool,
    config: PretrainedConfig,
    codes: Codes | None,
    *,
    pickled: bool = False,
) -> PreTrainedModel:
    """Read the weights; a pooler that the checkpoint lacks is dropped, not made up."""
    given: dict[str, Any] = {}
    if codes is not None:
        dense = {f"{name}.weight": w.dequantize() for name, w in codes.weights.items()}
        given = {"config": config, "state_dict": {**codes.dense, **dense}}
        auto = class_of(auto, config)  # an Auto class would look for files
    try:
        with quiet():
            model, info = auto.from_pretrained(
                source.folder if codes is None else None,
                **given,
                dtype=dtype,
                use_safetensors=not pickled,
                weights_only=True,
                local_files_only=True,
                trust_remote_code=trust,
                output_loading_info=True,
            )
    except (ValueError, RuntimeError, OSError, ImportError, SafetensorError) as error:
        raise UnsupportedArchitectureError(
            f"{source.ref!r} was found, but transformers could not load its weights: {error}"
        ) from error
    _check_unused(source.ref, model, info["unexpected_keys"])
    generation = source.folder / "generation_config.json"
    if codes is not None and model.can_generate() and generation.is_file():  # no folder was given
        from transformers import GenerationConfig

        with quiet():
            model.generation_config = GenerationConfig.from_pretrained(source.folder)
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


_UNUSED = re.compile(
    r"(inv_freq|(attn|attention|self)\.(masked_)?bias|position_ids|token_type_ids|\.mask)$"
)
"""Names of buffers that older versions of transformers stored, and newer ones compute."""


def _check_unused(ref: str, model: PreTrainedModel, names: Iterable[str]) -> None:
    """Refuse a checkpoint that has more than is read of it, but for what is left out by rule.

    Left out are buffers that are computed, and heads that a model without them does not have.
    """
    prefix = f"{model.base_model_prefix}."
    parts = {name.split(".")[0] for name, _ in model.base_model.named_children()}
    whole = is_causal(type(model).__name__) or model.config.is_encoder_decoder
    unused = sorted(name for name in names if not _UNUSED.search(name))
    lost = [
        name
        for name in unused
        if whole or name.startswith(prefix) or name.split(".")[0] in parts
        if ".pooler." not in f".{name}"
    ]
    if lost:
        raise UnsupportedArchitectureError(
            f"The checkpoint of {ref!r} has {len(lost)} tensors that its config.json has no place"
            f" for (first: {lost[0]}), so it is not the model that was saved. Download both again,"
            " or correct the numbers of layers in config.json."
        )


def _header(tensor: Tensor) -> tuple[str, int]:
    """Return a tensor's dtype, as safetensors names it, and its bytes."""
    names = {dtype: name for name, dtype in STORED.items()}
    return names.get(tensor.dtype, str(tensor.dtype)), tensor.numel() * tensor.element_size()


def _all_tensors(files: Iterable[Path]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_pickled(file) if file.suffix == ".bin" else read_tensors(file)[0]
    return tensors


def _put_codes(model: LoadedModel, codes: Codes) -> None:
    """Note the codes under the names that the model's modules have; their values are in place."""
    prefix = f"{model.hf_model.base_model_prefix}."
    modules = {name for name, _ in model.hf_model.named_modules()}
    experts: dict[str, list[tuple[int, QuantizedWeight]]] = {}
    rows = None
    for name, weight in codes.weights.items():
        names = (name, name.removeprefix(prefix), prefix + name)
        known = next((n for n in names if n in modules), None)
        if known is None:  # one expert's matrix, which the model has in a stack
            rows = expert_rows(model.hf_model) if rows is None else rows
            place = next((rows[n] for n in names if n in rows), None)
            if place is not None and isinstance(weight, QuantizedWeight):
                experts.setdefault(place.site, []).append((place.start, weight))
                continue
        model.set_weight(known or name, weight)
    for site, parts in experts.items():
        ordered = [part for _, part in sorted(parts, key=lambda found: found[0])]
        model.set_weight(site, QuantizedWeight.stacked(ordered))


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
    from transformers import PreTrainedTokenizerBase

    if isinstance(given, PreTrainedTokenizerBase):
        tokenizer, ref = copy.deepcopy(given), type(given).__name__
    elif isinstance(given, (str, os.PathLike, Source)):
        source = given if isinstance(given, Source) else find_source(given)
        check_vocabulary(source)
        tokenizer, ref = _read_tokenizer(source, trust), repr(source.ref)
    else:
        raise ConfigError(
            f"tokenizer: a {type(given).__name__} is not accepted; give a folder, a Hugging Face"
            " id or a live transformers tokenizer."
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(given, (str, os.PathLike, Source)):
        setattr(tokenizer, _LIMITS, (backend.truncation, backend.padding))
    rows = config.get_text_config().vocab_size
    if not 0 < tokenizer.vocab_size <= rows:
        raise ConfigError(
            f"The tokenizer of {ref} has {tokenizer.vocab_size:,} tokens and the model embeds"
            f" {rows:,}; they do not belong together. Give the model's own tokenizer."
        )
    return tokenizer


def _read_tokenizer(source: Source, trust: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                source.folder, local_files_only=True, trust_remote_code=trust
            )
    except Exception as error:
        raise TokenizerMissingError(
            f"The tokenizer of {source.ref!r} cannot be read ({type(error).__name__}: {error})."
            " Give another one: load_model(…, tokenizer=<folder, id or live tokenizer>)."
        ) from error
    return tokenizer


def _smaller(tensor: Tensor, dtype: torch.dtype, lossless: bool) -> Tensor:
    """Return a tensor in the stored dtype; if ``lossless``, only where nothing is lost by it."""
    if not tensor.is_floating_point():
        return tensor
    smaller = tensor.to(dtype)
    kept = not lossless or torch.equal(smaller.to(tensor.dtype), tensor)
    return smaller if kept else tensor


def _read_extras(folder: Path) -> dict[str, Any]:
    path = folder / EXTRAS
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError(f"it holds a {type(data).__name__}")
    except (ValueError, RecursionError) as error:
        raise ModelNotFoundError(f"{path} is damaged ({error}); copy the folder again.") from error
    return data


def _read_beside(folder: Path) -> dict[str, str]:
    paths = [folder / name for name in BESIDE]
    found = {path.name: path.read_text(encoding="utf-8") for path in paths if path.is_file()}
    return found | read_sentence_files(folder)


def _read_head(folder: Path, extras: dict[str, Any]) -> ClassificationHead | None:
    if "head" not in extras:
        return None
    if not (folder / HEAD).is_file():
        raise ModelNotFoundError(f"{str(folder)!r} lacks its head ({HEAD}); copy it again.")
    return ClassificationHead.load(folder / HEAD)
