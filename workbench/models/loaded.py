"""A model in memory: the transformers model, its tokenizer, and what it is stored as."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.fields import shown, text_given, whole
from workbench.models.architectures import decoder_start_token, is_causal, is_seq2seq, quiet
from workbench.models.finite import check_weight
from workbench.models.precision import generic_name
from workbench.models.streaming import Streaming, computed_parts
from workbench.models.weight_access import WeightSite, find_site, module_site
from workbench.tensors.memory_mapped import read_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from workbench.tensors.weights import CompressedWeight


STREAMED_STEPS = "RTN, GPTQ, AWQ, Mixed, MagnitudePruning, Wanda, SparseGPT, LowRankCorrection"
"""Steps that solve layer by layer, and so take a model whose weights are in their files."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model came from.

    Attributes
    ----------
    kind : str
        ``"demo"``, ``"folder"``, ``"hub"`` or ``"live"``.
    ref : str
        What :func:`workbench.models.load.load_model` finds it by: ``"demo"``, the absolute folder
        or the Hugging Face id; for a live model only the name it gave itself.
    revision : str or None
        The commit of a Hub model.
    architecture : str
        Class of the checkpoint, such as ``"LlamaForCausalLM"``.
    name : str
        Short, for plots.
    trust_remote_code : bool
        Whether Python code of the model's own was run to load it.
    """

    kind: str
    ref: str
    revision: str | None
    architecture: str
    name: str
    trust_remote_code: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the source as JSON-ready data."""
        data = dict(vars(self))
        if not self.trust_remote_code:
            del data["trust_remote_code"]  # as versions read it that do not know it
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelSource:
        """Return the source that :meth:`to_dict` described."""
        return cls(**data)


@dataclass(frozen=True, eq=False)
class ClassificationHead:
    """A linear classifier on top of an encoder's pooled output.

    Attributes
    ----------
    weight : Tensor of shape (n_labels, hidden_size), float32
    bias : Tensor of shape (n_labels,), float32
    labels : tuple of str
        The label of each row.
    pooling : str
        ``"mean"``: the mean of the last hidden states over the tokens that are not padding.
    """

    weight: Tensor
    bias: Tensor
    labels: tuple[str, ...]
    pooling: str = "mean"

    def __post_init__(self) -> None:
        rows = len(self.labels)
        if self.weight.ndim != 2 or self.weight.shape[0] != rows or self.bias.shape != (rows,):
            raise ConfigError(
                f"A head of {rows} labels needs a weight of {rows} rows and a bias of {rows}; given"
                f" are {tuple(self.weight.shape)} and {tuple(self.bias.shape)}."
            )
        if self.pooling != "mean":
            raise ConfigError(f"pooling={shown(self.pooling)} is not accepted; give 'mean'.")

    def save(self, path: Path) -> None:
        """Write one safetensors file: weight and bias, with labels and pooling as metadata."""
        from safetensors.torch import save_file

        tensors = {"weight": self.weight, "bias": self.bias}
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            path,
            metadata={"labels": json.dumps(self.labels), "pooling": self.pooling},
        )

    @classmethod
    def load(cls, path: Path) -> ClassificationHead:
        """Read what :meth:`save` wrote."""
        tensors, meta = read_tensors(path)
        labels = tuple(json.loads(meta["labels"]))
        return cls(tensors["weight"], tensors["bias"], labels, meta["pooling"])


@dataclass(frozen=True, eq=False)
class Anchors:
    """Vectors of the dense model, to which another model's vectors are compared.

    The similarities of a text to them are the logits of a task of vectors: they move if, and only
    if, the text would be found beside other texts.

    Attributes
    ----------
    vectors : Tensor of shape (anchors, vector size), float32
        Of unit length.
    task : str
        Fingerprint of the task whose texts they are of.
    pooling : str
        How they were made, see :class:`~workbench.models.sentence_encoding.SentenceEncoding`.
    """

    vectors: Tensor
    task: str
    pooling: str

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        from safetensors.torch import save_file

        about = {"task": self.task, "pooling": self.pooling}
        save_file(
            {"vectors": self.vectors.detach().cpu().contiguous()},
            path,
            metadata={"anchors": json.dumps(about)},
        )

    @classmethod
    def load(cls, path: Path) -> Anchors:
        """Read what :meth:`save` wrote."""
        tensors, meta = read_tensors(path)
        return cls(tensors["vectors"], **json.loads(meta["anchors"]))


@dataclass(eq=False, repr=False)
class LoadedModel:
    """A transformers model with its tokenizer and the form that its weights are stored in.

    Attributes
    ----------
    hf_model : PreTrainedModel
        In eval mode; no parameter requires a gradient. Where a weight is compressed this holds
        its dense copy.
    tokenizer : PreTrainedTokenizerBase
        None for an image model, which can be calibrated and compressed but has no task.
    source : ModelSource
    stored_dtype : torch.dtype
        What uncompressed tensors are stored as (the checkpoint's dtype); computing may use
        another one.
    weights : dict of str to CompressedWeight
        The compressed weights by module name; these are the truth. Change it by
        :meth:`set_weight` only.
    head : ClassificationHead or None
    structure : dict
        Fields of the configuration that structural steps have changed since the model was loaded;
        JSON-ready.
    wide : frozenset of str
        What is stored in float32 whatever ``stored_dtype`` is, by its
        :func:`~workbench.models.precision.generic_name`: what the checkpoint holds in more bits
        than most of it, and what the class keeps (the biases of routers).
    beside : dict of str to str
        Text of the checkpoint's files that say how images and sound are read and how vectors are
        made of texts, by their paths; every checkpoint that is written has them again.
    streaming : Streaming or None
        Of a model whose weights stay in their files: what reads its blocks. Its parameters are
        mapped, in the stored dtype, and shared by copies.
    anchors : Anchors or None
        Of a model that is bound to a task of vectors.
    """

    hf_model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: ModelSource
    stored_dtype: torch.dtype
    weights: dict[str, CompressedWeight] = field(default_factory=dict)
    head: ClassificationHead | None = None
    structure: dict[str, Any] = field(default_factory=dict)
    wide: frozenset[str] = frozenset()
    beside: dict[str, str] = field(default_factory=dict)
    streaming: Streaming | None = None
    anchors: Anchors | None = None
    _fingerprint: tuple[object, str] | None = field(default=None, init=False, repr=False)

    def copy(self) -> LoadedModel:
        """Return an independent copy that shares the tokenizer and the compressed weights."""
        weights = dict(self.weights)
        shared: dict[int, Any] = {}
        streaming = None
        if self.streaming is not None:
            streaming = self.streaming.copied(weights)
            shared = {id(p): p for p in self.hf_model.parameters() if p.ndim > 1}
            shared[id(self.streaming)] = streaming  # its hooks belong to the copy then
        return LoadedModel(
            copy.deepcopy(self.hf_model, shared),
            self.tokenizer,
            self.source,
            self.stored_dtype,
            weights,
            self.head,
            dict(self.structure),
            self.wide,
            dict(self.beside),
            streaming,
            self.anchors,
        )

    def stored_as(self, name: str) -> torch.dtype:
        """Return the dtype in which a floating-point tensor of this name is stored densely."""
        wide = bool(self.wide) and generic_name(name) in self.wide
        return torch.float32 if wide else self.stored_dtype

    def as_measured(self) -> LoadedModel:
        """Return the model without a head that its class has and that another one replaces.

        Whoever loads an export with transformers would else get the answers of the head that was
        never measured. Weights are shared.
        """
        if self.head is None or not type(self.hf_model).__name__.endswith(
            "ForSequenceClassification"
        ):
            return self
        prefix = f"{self.hf_model.base_model_prefix}."
        bare: Any = self.hf_model.base_model
        return replace(
            self,
            hf_model=bare,
            weights={
                name.removeprefix(prefix): weight
                for name, weight in self.weights.items()
                if name.startswith(prefix)
            },
            structure=dict(self.structure),
            wide=frozenset(name.removeprefix(prefix) for name in self.wide),
        )

    def set_weight(self, name: str, weight: CompressedWeight) -> None:
        """Store a module's weight compressed, and put its dense copy in place.

        A weight that is tied to another module's stays tied: both change and it counts once.

        Parameters
        ----------
        name : str
            Module name, as in ``hf_model.named_modules()``, or an expert's (see
            :mod:`workbench.models.weight_access`).
        weight : CompressedWeight
            Of shape (out_features, in_features).

        Raises
        ------
        ConfigError
            If there is no such module, or the shapes differ.
        NotFiniteError
            If the weight stands for numbers that are not finite.
        """
        dense = weight.dequantize()
        check_weight(name, dense, "once it is compressed")
        site = self.site(name)
        if self.streaming is None or self.streaming.is_open(name):
            site.put(dense)
        self.weights[name] = weight
        if self.streaming is not None:
            self.streaming.supply(site)
        self._fingerprint = None

    def need_resident(self, what: str) -> None:
        """Raise what a streamed model cannot be used for, and say what it can.

        Raises
        ------
        ConfigError
            If the weights are in their files, see :class:`workbench.models.streaming.Streaming`.
        """
        if self.streaming is not None:
            raise ConfigError(
                f"{what} needs all weights in memory, and {self.source.name} is streamed from its"
                f" files. {STREAMED_STEPS} and evaluation take it as it is; for the rest load it"
                ' with memory="resident", in dtype="bfloat16" where memory is short.'
            )

    def site(self, name: str) -> WeightSite:
        """Return where the weight of a module, or of one expert, lies.

        Raises
        ------
        ConfigError
            If there is no such module.
        """
        try:
            return find_site(self.hf_model, name)
        except ConfigError as error:
            raise ConfigError(f"{self.source.name}: {error}") from None

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.hf_model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in: the dtype of most of its parameters."""
        if self.streaming is not None:
            return self.streaming.dtype
        sizes: Counter[torch.dtype] = Counter()
        for parameter in self.hf_model.parameters():
            if parameter.is_floating_point():
                sizes[parameter.dtype] += parameter.numel()
        return sizes.most_common(1)[0][0]

    @property
    def is_decoder(self) -> bool:
        """Whether the model predicts the next token (and can generate text)."""
        return is_causal(type(self.hf_model).__name__)

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether a decoder writes an answer to what an encoder reads (T5, BART)."""
        return bool(getattr(self.hf_model.config, "is_encoder_decoder", False))

    @property
    def max_length(self) -> int | None:
        """Tokens that fit into one input, None where the model sets no limit."""
        config = self.hf_model.config.get_text_config()
        limits = []
        positions = getattr(config, "max_position_embeddings", None)
        positions = positions or getattr(config, "max_seq_len", None)  # MPT
        if isinstance(positions, int) and positions > 0:
            table = _position_table(self.hf_model)
            skipped = table.padding_idx if table is not None else None
            limits.append(positions - (0 if skipped is None else skipped + 1))
        tokenizer_limit = getattr(self.tokenizer, "model_max_length", None)
        if tokenizer_limit is not None and 0 < tokenizer_limit < 10**9:
            limits.append(int(tokenizer_limit))
        return min(limits, default=None)

    @property
    def n_embeddings(self) -> int:
        """Rows of the table of token embeddings: ids from here on cannot be read."""
        table: Any = self.hf_model.get_input_embeddings()
        rows = getattr(getattr(table, "weight", None), "shape", (0,))[0]
        return int(rows or self.hf_model.config.get_text_config().vocab_size)

    @property
    def pad_token_id(self) -> int:
        """What batches are filled up with: a token that the model embeds, and never scores.

        The model's own padding where it has one, else the tokenizer's, else an end of text. One
        that was added to the tokenizer alone has no row in the table of embeddings.
        """
        config = self.hf_model.config.get_text_config()
        candidates = (
            getattr(config, "pad_token_id", None),
            self.tokenizer.pad_token_id,
            self.tokenizer.eos_token_id,
        )
        rows = self.n_embeddings
        return next((int(t) for t in candidates if t is not None and 0 <= t < rows), 0)

    @property
    def n_parameters(self) -> int:
        """Parameters of the model and its head; tied ones count once."""
        unique = {tensor_identity(p): p.numel() for p in self.hf_model.parameters()}
        head = 0 if self.head is None else self.head.weight.numel() + self.head.bias.numel()
        return sum(unique.values()) + head

    @property
    def size_bytes(self) -> int:
        """Bytes of all stored tensors: compressed as packed, the rest as :meth:`stored_as` says.

        Parameters, persistent buffers and the head count; tied tensors count once.
        """
        seen: set[tuple[int, int]] = set()
        covered: Counter[tuple[int, int]] = Counter()  # values of each parameter, by its identity
        total = 0
        for name, weight in self.weights.items():
            site = self.site(name)
            identity = tensor_identity(site.stored)
            if identity not in seen:
                seen.add(identity)
                covered[tensor_identity(site.whole)] += site.stored.numel()
                total += weight.stored_bytes
        counted = set()
        for name, tensor in _stored_tensors(self.hf_model):
            identity = tensor_identity(tensor)
            if identity not in counted:
                counted.add(identity)
                floating = tensor.is_floating_point()
                itemsize = self.stored_as(name).itemsize if floating else tensor.element_size()
                total += (tensor.numel() - covered[identity]) * itemsize
        if self.head is not None:
            total += (
                self.head.weight.numel() + self.head.bias.numel()
            ) * self.stored_dtype.itemsize
        return total

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of configuration, tokenizer, stored dtype and every weight.

        Cached; computed again after :meth:`set_weight` and after changes that torch counts
        (an optimizer's step, ``tensor.copy_``), not after writes through ``tensor.data``.
        """
        tensors = list(_stored_tensors(self.hf_model))
        state = (id(self.head), *((tensor_identity(t), _version(t)) for _, t in tensors))
        if self._fingerprint is None or self._fingerprint[0] != state:
            self._fingerprint = (state, self._compute_fingerprint(tensors))
        return self._fingerprint[1]

    def _compute_fingerprint(self, tensors: list[tuple[str, Tensor]]) -> str:
        digest = hashlib.sha256()
        config = _plain_config(self.hf_model)
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        digest.update(f"{self.stored_dtype}\n{tokenizer_fingerprint(self.tokenizer)}".encode())
        if self.weights:  # of two equal models the one with codes is smaller
            described = {name: weight.describe() for name, weight in self.weights.items()}
            digest.update(json.dumps(described, sort_keys=True).encode())
        if self.head is not None:
            tensors = [*tensors, ("head.weight", self.head.weight), ("head.bias", self.head.bias)]
            digest.update(json.dumps([self.head.labels, self.head.pooling]).encode())
        seen = set()
        dtype = None if self.streaming is None else self.streaming.dtype
        supplied = {f"{n}.weight": n for n in self.weights} if dtype is not None else {}
        for name, tensor in tensors:
            kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            digest.update(f"\n{name} {tuple(tensor.shape)} {kind}\n".encode())
            if tensor_identity(tensor) not in seen:
                seen.add(tensor_identity(tensor))
                if name in supplied:
                    site = self.site(supplied[name])
                    tensor = site.matrix.T if site.transposed else site.matrix
                for part in computed_parts(tensor, dtype):
                    digest.update(part.view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def summary(self) -> str:
        """Return name, architecture, parameters, size and dtypes as a line for people."""
        text = (
            f"{self.source.name}: {self.source.architecture}, {self.n_parameters / 1e6:,.1f} M"
            f" parameters, {self.size_bytes / 1e6:,.1f} MB in {_short(self.stored_dtype)}"
        )
        if self.weights:
            text += f" with {len(self.weights)} compressed weights"
        if self.head is not None:
            text += f", head of {len(self.head.labels)} labels"
        where = "" if self.streaming is None else ", block by block from its files"
        return f"{text}; computes in {_short(self.dtype)} on {self.device}{where}"

    def __repr__(self) -> str:
        return f"<LoadedModel {self.summary()}>"

    def generate(self, prompt: str, *, max_new_tokens: int = 50) -> str:
        """Return the text that the model continues a prompt with, greedily (no sampling).

        An encoder-decoder reads the prompt and writes its answer.

        Parameters
        ----------
        prompt : str
            Text to go on from, or to answer.
        max_new_tokens : int
            Stop after so many tokens, or at the model's end-of-text token.

        Returns
        -------
        str
            The new text only, without the prompt.

        Raises
        ------
        UnsupportedArchitectureError
            If the model is an encoder.
        ConfigError
            If the prompt is empty or does not fit into the model.
        """
        kind = type(self.hf_model).__name__
        if not self.is_decoder and not is_seq2seq(kind):
            raise UnsupportedArchitectureError(
                f"{self.source.name} ({kind}) does not generate text; use a"
                " decoder such as 'demo', or evaluate this model on a TextClassification task."
            )
        max_new_tokens = whole("generate", "max_new_tokens", max_new_tokens, maximum=2**20)
        text_given("generate", "prompt", prompt)
        inputs = self.tokenizer(prompt, return_tensors="pt")
        ids = inputs["input_ids"].to(self.device)
        if ids.shape[1] == 0:
            raise ConfigError("Give a prompt that is not empty.")
        limit, together = self.max_length, ids.shape[1] + max_new_tokens
        if self.is_encoder_decoder:  # each side has positions of its own
            together = max(ids.shape[1], max_new_tokens)
        if limit is not None and together > limit:
            each = "of each" if self.is_encoder_decoder else "together"
            raise ConfigError(
                f"The prompt has {ids.shape[1]} tokens and {max_new_tokens} new ones are asked for;"
                f" {self.source.name} takes {limit} {each}. Shorten the prompt or lower"
                " max_new_tokens."
            )
        written = self.write(ids.long(), torch.ones_like(ids), max_new_tokens=max_new_tokens)
        return str(self.tokenizer.decode(written[0], skip_special_tokens=True))

    def write(self, input_ids: Tensor, attention_mask: Tensor, *, max_new_tokens: int) -> Tensor:
        """Return the tokens that the model writes after prompts, greedily, at most so many.

        Parameters
        ----------
        input_ids, attention_mask : Tensor of shape (prompts, tokens), int64
            Padded on the left, as the model goes on at the right; of an encoder-decoder on the
            right, as in training.
        max_new_tokens : int

        Returns
        -------
        Tensor of shape (prompts, new tokens), int64
            Filled up with padding after an end-of-text token.
        """
        options: dict[str, Any] = {}
        first = input_ids.shape[1]
        if self.is_encoder_decoder:
            config: Any = self.hf_model.config
            first = 1
            options["decoder_start_token_id"] = decoder_start_token(config)
            opening = self._opening()
            if opening is not None and self.hf_model.generation_config.forced_bos_token_id is None:
                options["forced_bos_token_id"] = opening
            # The cache that generate() makes for T5 has as many layers as the encoder.
            layers = [getattr(config, f"num_{side}_layers", 0) for side in ("decoder", "hidden")]
            if layers[0] > layers[1]:
                options["use_cache"] = False
        generate: Any = self.hf_model.generate
        with torch.no_grad(), quiet():
            output = generate(
                input_ids=input_ids,
                attention_mask=attention_mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.pad_token_id,
                **options,
            )
        written: Tensor = output[:, first:]
        return written

    def _opening(self) -> int | None:
        """Return what the tokenizer begins every target with: a language (NLLB), or None."""
        tokens = self.tokenizer(text_target="", verbose=False)["input_ids"]
        special = len(tokens) > 1 and tokens[0] in self.tokenizer.all_special_ids
        return int(tokens[0]) if special else None


def put_weight(module: nn.Module | WeightSite, weight: Tensor) -> None:
    """Write a dense weight of shape (out_features, in_features) into a layer, in place.

    The parameter stays the same object, so tied modules see the change. GPT-2's ``Conv1D`` keeps
    its weight transposed and is handled.

    Raises
    ------
    ConfigError
        If the shapes differ.
    """
    (module if isinstance(module, WeightSite) else module_site("", module)).put(weight)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return sixteen hexadecimal digits of a tokenizer's vocabulary, rules and special tokens."""
    if tokenizer is None:
        return "none"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        for state in ("padding", "truncation"):  # set by calls, not part of the tokenizer
            rules.pop(state, None)
    else:
        rules = [type(tokenizer).__name__, tokenizer.get_vocab()]
    data = json.dumps([rules, tokenizer.special_tokens_map], sort_keys=True, default=str)
    return hashlib.sha256(data.encode()).hexdigest()[:16]


def _plain_config(model: PreTrainedModel) -> dict[str, Any]:
    """Return the configuration without what depends on where and how it was loaded."""
    incidental = {"transformers_version", "dtype", "torch_dtype", "architectures"}
    to_dict: Any = model.config.to_dict
    data: dict[str, Any] = to_dict()
    kept = {k: v for k, v in data.items() if k not in incidental and not k.startswith("_")}
    return {"class": type(model).__name__, **kept}


def _stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers by name; tied ones appear under each name."""
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            yield name, value


def tensor_identity(tensor: Tensor) -> tuple[int, int]:
    """Return what two tied tensors share. Not the storage alone: a file's tensors may share one."""
    return (tensor.data_ptr() or id(tensor), tensor.numel())


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _position_table(model: nn.Module) -> nn.Embedding | None:
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
