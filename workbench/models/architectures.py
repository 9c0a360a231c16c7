"""Which architectures the workbench takes, and which transformers class reads them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import UnsupportedArchitectureError
from workbench.models.sources import Source

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def is_seq2seq(architecture: str) -> bool:
    """Return whether a transformers class is a text encoder-decoder with an output head."""
    from transformers.models.auto import modeling_auto

    return architecture in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values()


def is_lone_encoder(architecture: str) -> bool:
    """Return whether a transformers class is the encoder of an encoder-decoder alone."""
    from transformers.models.auto import modeling_auto

    names = modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.values()
    return architecture.endswith("EncoderModel") and architecture in names


def has_lone_encoder(config: PretrainedConfig) -> bool:
    """Return whether transformers loads the encoder of an encoder-decoder alone (T5, not BART)."""
    from transformers.models.auto import modeling_auto

    return config.model_type in modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES


def is_causal(architecture: str) -> bool:
    """Return whether a transformers class predicts the next token, of texts or images and texts."""
    from transformers.models.auto import modeling_auto

    names = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    plain = architecture.endswith("ForCausalLM") or architecture in names
    return plain or takes_images(architecture)


def classifies_by_last_token(architecture: str) -> bool:
    """Return whether a transformers class is a decoder that judges a text by its last token."""
    from transformers.models.auto import modeling_auto as auto

    names = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    encoders = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    decoders = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - encoders.keys()
    return architecture in {name for kind, name in names.items() if kind in decoders}


def takes_images(architecture: str) -> bool:
    """Return whether a transformers class goes on with texts, and reads images or sound too."""
    from transformers.models.auto import modeling_auto

    names = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()
    return architecture in names and not is_seq2seq(architecture)


def wraps_decoder(architecture: str, config: PretrainedConfig) -> bool:
    """Return whether a model of images or sound and texts has a text decoder in it, to be taken.

    Its towers for images and sound are carried along unchanged.
    """
    import transformers

    text = config.get_text_config()
    if not takes_images(architecture) or text is config:
        return False
    reads = getattr(getattr(transformers, architecture, None), "main_input_name", "")
    return reads == "input_ids" and not getattr(text, "is_encoder_decoder", False)


def text_part(hf_model: nn.Module) -> tuple[str, nn.Module]:
    """Return name and module of the text decoder in a model of images or sound and texts.

    Of every other model it is the model itself, with an empty name.
    """
    whole: Any = hf_model
    config = getattr(whole, "config", None)
    if config is None or not _has_towers(config) or not hasattr(whole, "get_decoder"):
        return "", hf_model
    found = whole.get_decoder()
    return next(((n, m) for n, m in hf_model.named_modules() if m is found), ("", hf_model))


def auto_class(architecture: str) -> Any:
    """Return the transformers Auto class for a checkpoint's architecture; AutoModel by default."""
    import transformers

    if takes_images(architecture):
        return transformers.AutoModelForImageTextToText
    if is_causal(architecture):
        return transformers.AutoModelForCausalLM
    if architecture.endswith("ForSequenceClassification"):
        return transformers.AutoModelForSequenceClassification
    if is_seq2seq(architecture):
        return transformers.AutoModelForSeq2SeqLM
    if is_lone_encoder(architecture):
        return transformers.AutoModelForTextEncoding
    return transformers.AutoModel


def class_of(auto: Any, config: PretrainedConfig) -> Any:
    """Return the transformers class that an Auto class makes of a configuration."""
    from transformers.models.auto.auto_factory import _get_model_class

    return _get_model_class(config, auto._model_mapping)


def load_config(source: Source, raw: dict[str, object], trust: bool) -> PretrainedConfig:
    """Return the configuration of a model's files.

    Parameters
    ----------
    source : Source
        Where the files are.
    raw : dict
        The content of config.json.
    trust : bool
        Whether the model's own code may run.

    Raises
    ------
    UnsupportedArchitectureError
        If transformers does not know the model's type, or only its own code does.
    """
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
            " GPT-2 and similar), encoders (BERT and similar) and encoder-decoders (T5, BART and"
            " similar); a newer transformers may know more."
        ) from error


def architecture_of(ref: str, config: PretrainedConfig) -> str:
    """Return the class that a checkpoint was saved from.

    Raises
    ------
    UnsupportedArchitectureError
        If config.json names none, or the model is of a kind that is not supported.
    """
    names = getattr(config, "architectures", None)
    refuse_unsupported(repr(ref), config, str(names[0]) if names else "")
    if not names:
        raise UnsupportedArchitectureError(
            f"The config.json of {ref!r} names no architecture. Add the class the checkpoint was"
            ' saved from, such as "architectures": ["LlamaForCausalLM"] or ["BertModel"].'
        )
    return str(names[0])


def refuse_unsupported(
    given: str, config: PretrainedConfig, architecture: str, *, live: bool = False
) -> None:
    """Raise UnsupportedArchitectureError for what the workbench cannot take.

    Parameters
    ----------
    given : str
        The model as messages name it.
    config : PretrainedConfig
    architecture : str
        Its transformers class.
    live : bool
        True where only calibrating and compressing is asked for, which works for image models
        and for encoder-decoders without a head too; there is no task to evaluate them on.
    """
    kind = f"model_type {config.model_type!r}"
    accepted = (
        "Accepted are text decoders (Llama, OPT, GPT-2 …), encoders (BERT …) and encoder-decoders"
        " that write text (T5ForConditionalGeneration …). calibrate() and compress() take image"
        " models too, loaded with transformers and given to load_model() live."
    )
    if getattr(config, "quantization_config", None) is not None:
        raise UnsupportedArchitectureError(
            f"{given} is quantized already; give the original model, so that the workbench can"
            " compress it and compare."
        )
    if wraps_decoder(architecture, config):
        return
    mixed = _has_towers(config)
    whole = is_seq2seq(architecture) or is_lone_encoder(architecture)
    if getattr(config, "is_encoder_decoder", False) and not mixed and not live and not whole:
        if architecture.endswith("ForSequenceClassification"):
            family = architecture.removesuffix("ForSequenceClassification")
            accepted = (
                f"Give a checkpoint of {family}ForConditionalGeneration and the task Extraction,"
                " with fields= the column of labels, which has the model write the label"
            )
            if has_lone_encoder(config):
                accepted += (
                    f"; or {family}EncoderModel and TextClassification, which trains a new head:"
                    " load_model(AutoModelForTextEncoding.from_pretrained(folder), tokenizer)"
                )
            accepted += "."
        raise UnsupportedArchitectureError(
            f"{given} is an encoder-decoder ({kind}) saved as {architecture or 'no class'}, which"
            f" writes no text. {accepted}"
        )
    if mixed or (not live and not _reads_text(config)):
        raise UnsupportedArchitectureError(
            f"{given} is not a text model ({kind}: images or sound), for which there is no task"
            f" yet. {accepted}"
        )


def _has_towers(config: PretrainedConfig) -> bool:
    return any(hasattr(config, name) for name in ("vision_config", "audio_config"))


def _reads_text(config: PretrainedConfig) -> bool:
    return not hasattr(config, "image_size") and hasattr(config.get_text_config(), "vocab_size")


def backbone(hf_model: PreTrainedModel) -> PreTrainedModel:
    """Return the part of a model that holds its blocks, without the output head if that is apart.

    An encoder-decoder is returned whole.
    """
    if getattr(hf_model.config, "is_encoder_decoder", False):
        return hf_model
    inner: PreTrainedModel = hf_model.base_model  # type: ignore[assignment]
    return inner


def decoder_start_token(config: PretrainedConfig) -> int:
    """Return what an encoder-decoder's decoder reads before the first token that it predicts."""
    tokens = (
        getattr(config, "decoder_start_token_id", None),
        getattr(getattr(config, "decoder", None), "bos_token_id", None),  # T5Gemma
        getattr(config, "pad_token_id", None),
    )
    return next((int(token) for token in tokens if token is not None), 0)


def probe_inputs(hf_model: PreTrainedModel, tokens: int = 4) -> dict[str, Tensor]:
    """Return the smallest inputs that run a whole model once: some tokens, or an empty image.

    An encoder-decoder's decoder reads one token fewer than its encoder, so that what enters a
    layer shows whose tokens they are.

    Raises
    ------
    UnsupportedArchitectureError
        If the model reads neither text nor images.
    """
    device = next(hf_model.parameters()).device
    reads = hf_model.main_input_name
    if reads == "input_ids":
        rows = hf_model.config.get_text_config().vocab_size
        ids = (torch.arange(tokens, device=device) % rows)[None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if getattr(hf_model.config, "is_encoder_decoder", False):
            inputs["decoder_input_ids"] = ids[:, :-1]
        return inputs
    if reads == "pixel_values":
        config = hf_model.config
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        dtype = next(p.dtype for p in hf_model.parameters() if p.is_floating_point())
        shape = (1, config.num_channels, height, width)
        return {"pixel_values": torch.zeros(shape, dtype=dtype, device=device)}
    raise UnsupportedArchitectureError(
        f"{type(hf_model).__name__} reads {reads!r}; accepted are models that read text"
        " ('input_ids') or images ('pixel_values')."
    )


def count_parameters(auto: Any, config: PretrainedConfig, name: str, trust: bool) -> int:
    """Count parameters on the meta device, where they take no memory; tied ones once."""
    try:
        with torch.device("meta"), quiet():
            empty = auto.from_config(copy.deepcopy(config), trust_remote_code=trust)
    except ValueError as error:
        raise UnsupportedArchitectureError(
            f"The architecture {name!r} (model_type {config.model_type!r}) is not one that"
            f" transformers' {auto.__name__} can build: {str(error).splitlines()[0][:200]}"
        ) from error
    return sum(parameter.numel() for parameter in empty.parameters())


def parameter_names(auto: Any, config: PretrainedConfig) -> list[str]:
    """Return the names of everything that a model of this configuration stores."""
    with torch.device("meta"), quiet():
        return list(auto.from_config(copy.deepcopy(config)).state_dict())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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


def _known_types() -> set[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return set(CONFIG_MAPPING_NAMES)
