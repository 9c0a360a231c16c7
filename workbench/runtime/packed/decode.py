"""Decode one token at a time on a short path: few operations between the packed products.

transformers' modules spend more time between the products of a small layer than in them. This is
the same arithmetic for Llama and its like with preallocated caches. What was measured on the way,
one core, 1,024 wide: attention of one token over 192 earlier ones takes 324 µs in bfloat16 and 49
in float32, so keys, values, rotation and the residual sum are float32 here (and more exact than
in bfloat16); torch's rms_norm takes 16 µs, the four operations below 5. Where the package's own
kernels are compiled, attention of one token is one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.runtime.packed import native
from workbench.runtime.packed.linear import PackedLinear
from workbench.tensors.devices import is_cpu

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
_ROTARY_TYPES = ("default", "linear", "llama3")

Product = Callable[[Tensor], Tensor]


def why_not_lean(hf_model: PreTrainedModel) -> str | None:
    """Return why a model cannot be decoded by :class:`Decoder`, or None if it can."""
    config = hf_model.config
    if config.model_type not in _MODEL_TYPES or not hasattr(hf_model, "lm_head"):
        return f"{type(hf_model).__name__} is not one of {', '.join(_MODEL_TYPES)} with a head"
    rotary: Any = getattr(config, "rope_parameters", None) or {}
    kind = rotary.get("rope_type", "default")
    if kind not in _ROTARY_TYPES:
        return f"rotary positions of type {kind!r} depend on the length"
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"the activation is {config.hidden_act!r}, not 'silu'"
    if not is_cpu(hf_model.device):
        return f"it runs on {hf_model.device.type}, and the short path on the CPU only"
    if hf_model.dtype != torch.bfloat16:
        return f"it computes in {hf_model.dtype}, and the short path in torch.bfloat16 only"
    return None


class Decoder:
    """Greedy decoding of one sequence, for Llama, Mistral, Qwen 2 and Qwen 3.

    Parameters
    ----------
    hf_model : PreTrainedModel
        Packed or dense, from :func:`workbench.runtime.packed.pack_model`: bfloat16, on the CPU. Its
        tensors are used, not copied; dense layers of one input become parts of one tensor.
    capacity : int
        Most tokens, prompt and new ones together.

    Raises
    ------
    UnsupportedArchitectureError
        For other models, dtypes and devices.
    ConfigError
        If the capacity is more than the model's positions or its sliding window.
    """

    def __init__(self, hf_model: PreTrainedModel, capacity: int) -> None:
        reason = why_not_lean(hf_model)
        if reason is not None:
            raise UnsupportedArchitectureError(
                f"There is no short decoding path: {reason}. Use hf_model.generate."
            )
        config: Any = hf_model.config
        limits = [config.max_position_embeddings, getattr(config, "sliding_window", None)]
        limit = min(x for x in limits if x is not None)
        if not 1 <= capacity <= limit:
            raise ConfigError(f"capacity={capacity} is not accepted; give 1 to {limit} tokens.")
        body: Any = hf_model.model
        self.capacity = capacity
        self._n_heads = config.num_attention_heads
        self._n_keys = config.num_key_value_heads
        self._width = getattr(config, "head_dim", None) or config.hidden_size // self._n_heads
        self._embed = body.embed_tokens
        self._head = _product([hf_model.lm_head])
        self._norm = _Norm(body.norm)
        self._layers = [self._layer(block) for block in body.layers[: config.num_hidden_layers]]
        positions = torch.arange(capacity)[None]
        cos, sin = body.rotary_emb(torch.zeros(1, dtype=torch.float32), positions)
        half = self._width // 2
        # rotate_half(x) is a flip of the halves with a sign, and the sign goes into the sines.
        signed = torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)
        self._cos, self._sin = cos[0].clone(), signed
        self._compiled = (
            self._width % 16 == 0
            and self._width <= native.MOST_WIDTH
            and native.native_library()[0] is not None
        )
        self.position = 0

    def _layer(self, block: Any) -> tuple[Any, ...]:
        attention, mlp = block.self_attn, block.mlp
        norms = None
        if hasattr(attention, "q_norm"):
            norms = (_Norm(attention.q_norm), _Norm(attention.k_norm))
        keys = torch.zeros(self._n_keys, self.capacity, self._width)
        return (
            _Norm(block.input_layernorm),
            _product([attention.q_proj, attention.k_proj, attention.v_proj]),
            norms,
            keys,
            torch.zeros_like(keys),
            _product([attention.o_proj]),
            _Norm(block.post_attention_layernorm),
            _product([mlp.gate_proj, mlp.up_proj]),
            _product([mlp.down_proj]),
        )

    @torch.inference_mode()
    def prefill(self, ids: Sequence[int]) -> Tensor:
        """Read a prompt from the start; return the logits of what follows, (vocabulary,).

        Raises
        ------
        ConfigError
            If the prompt is empty or longer than the capacity.
        """
        if not 0 < len(ids) <= self.capacity:
            raise ConfigError(f"A prompt of {len(ids)} tokens; give 1 to {self.capacity}.")
        self.position = 0
        return self._advance(torch.tensor(ids))

    @torch.inference_mode()
    def step(self, token: int | Tensor) -> Tensor:
        """Read one more token; return the logits of what follows, (vocabulary,).

        Raises
        ------
        ConfigError
            If the capacity is used up.
        """
        if self.position >= self.capacity:
            raise ConfigError(f"The capacity of {self.capacity} tokens is used up.")
        return self._advance(torch.as_tensor(token).view(1))

    def generate(self, ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """Return the likeliest next tokens; an end-of-text token does not stop it.

        The last of them is not read any more, so len(ids) + max_new_tokens − 1 must fit.
        """
        logits = self.prefill(ids)
        found = []
        for left in range(max_new_tokens, 0, -1):
            token = logits.argmax()
            found.append(token)
            if left > 1:
                logits = self.step(token)
        return [int(token) for token in found]

    def _advance(self, ids: Tensor) -> Tensor:
        n, start = len(ids), self.position
        stop = start + n
        heads, shared, width = self._n_heads, self._n_keys, self._width
        rotated, half = heads + shared, width // 2
        cos, sin = self._cos[start:stop, None], self._sin[start:stop, None]
        silu = torch.nn.functional.silu
        h = self._embed(ids).float()
        for norm, qkv, norms, keys, values, out, norm2, gate_up, down in self._layers:
            x = qkv(norm(h)).view(n, rotated + shared, width).float()
            qk = x[:, :rotated]
            if norms is not None:
                qk = torch.cat([norms[0].float(qk[:, :heads]), norms[1].float(qk[:, heads:])], 1)
            swapped = qk.view(n, rotated, 2, half).flip(2).view(n, rotated, width)
            qk = torch.addcmul(qk * cos, swapped, sin)
            keys[:, start:stop] = qk[:, heads:].transpose(0, 1)
            values[:, start:stop] = x[:, rotated:].transpose(0, 1)
            h += out(self._attend(qk[:, :heads], keys, values, stop))
            x = gate_up(norm2(h))
            middle = x.shape[1] // 2
            h += down(silu(x[:, :middle]) * x[:, middle:])
        self.position = stop
        logits: Tensor = self._head(self._norm(h[-1:]))[0]
        return logits

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, stop: int) -> Tensor:
        """Return the attention of q, (tokens, heads, width), as (tokens, heads · width), bfloat16.

        One token sees all ``stop`` positions; of several each sees those up to its own.
        """
        n, heads, width = q.shape
        if n == 1 and self._compiled:
            return native.attend(q[0], keys, values, stop)
        attend = torch.nn.functional.scaled_dot_product_attention
        keys, values = keys[None, :, :stop], values[None, :, :stop]
        if n == 1:  # the query heads that share keys are as many queries of one head
            y = attend(q.view(1, self._n_keys, -1, width), keys, values)
        else:
            q = q.transpose(0, 1)[None]
            y = attend(q, keys, values, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
        return y.reshape(n, heads * width).bfloat16()


class _Norm:
    """RMS norm of the last dimension: x · w / √(mean x² + ε), from float32 to bfloat16."""

    def __init__(self, module: Any) -> None:
        width = module.weight.numel()
        self._weight = module.weight.detach().float() * width**0.5
        self._floor = torch.tensor((width * module.variance_epsilon) ** 0.5)

    def __call__(self, x: Tensor) -> Tensor:
        return self.float(x).bfloat16()

    def float(self, x: Tensor) -> Tensor:
        """Return the norm in float32."""
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * self._weight).div_(torch.hypot(size, self._floor))


def _product(modules: Sequence[nn.Module]) -> Product:
    """Return one callable for the joined output of layers that read the same input."""
    first = modules[0]
    parts = [m for m in modules if isinstance(m, PackedLinear) and m.low_rank is None]
    if isinstance(first, PackedLinear) and len(parts) == len(modules) == len(first.product.sizes):
        product = first.product
        in_order = [p.part for p in parts] == list(range(len(parts)))
        if in_order and all(p.product is product for p in parts):
            plain = product.kernel if product.input_scales is None else product.joined
            if all(p.bias is None for p in parts):
                return plain
            biases = [
                torch.zeros(p.out_features).bfloat16() if p.bias is None else p.bias.detach()
                for p in parts
            ]
            bias = torch.cat(biases)
            return lambda x: plain(x).add_(bias)
    if len(modules) == 1:
        return first
    if all(type(module) is nn.Linear for module in modules):
        return _joined_dense(modules)
    return lambda x: torch.cat([module(x) for module in modules], -1)


def _joined_dense(modules: Sequence[Any]) -> Product:
    """Return one product of dense layers, whose weights become parts of the joined one."""
    weight = torch.cat([module.weight.detach() for module in modules])
    sizes = [module.out_features for module in modules]
    for module, part in zip(modules, weight.split(sizes), strict=True):
        module.weight.data = part
    bias = None
    if any(module.bias is not None for module in modules):
        bias = torch.cat(
            [
                weight.new_zeros(m.out_features) if m.bias is None else m.bias.detach()
                for m in modules
            ]
        )
    return lambda x: torch.nn.functional.linear(x, weight, bias)
