"""A packed copy of whole models: outputs, what is reported, and what is left alone."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import ConfigError
from workbench.models.layers import find_linears, shared_inputs
from workbench.models.load import load_model
from workbench.models.loaded import LoadedModel
from workbench.recipes.schemes import IntScheme, Sparsity
from workbench.runtime.packed import pack_model
from workbench.runtime.packed.linear import PackedEmbedding, PackedLinear, SharedProduct
from workbench.tensors import affine
from workbench.tensors.devices import fast_dtype
from workbench.tensors.weights import CorrectedWeight, PrunedWeight, QuantizedWeight

INT4 = IntScheme(4, 32, False)
IDS = torch.arange(4, 24)[None]


def llama(seed: int = 0, **changes: Any) -> LoadedModel:
    values: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "vocab_size": 272,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(seed)
    return load_model(LlamaForCausalLM(LlamaConfig(**values | changes)), tiny_tokenizer())


def rounded(weight: torch.Tensor, scheme: IntScheme) -> QuantizedWeight:
    scales, zeros = affine.choose_scales(weight, scheme)
    codes = affine.quantize(weight, scales, zeros, scheme)
    return QuantizedWeight.from_codes(codes, scales, zeros, scheme)


def compress(model: LoadedModel, scheme: IntScheme = INT4) -> LoadedModel:
    model = model.copy()
    for name, site in find_linears(model.hf_model).items():
        model.set_weight(name, rounded(site.matrix, scheme))
    return model


def same(packed: nn.Module, dense: nn.Module, tolerance: float = 0.03) -> None:
    with torch.no_grad():
        given = packed(IDS).logits.float()
        expected = dense(IDS).logits.float()
    assert (given - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("scheme", [INT4, IntScheme(3, 32, True), IntScheme(8, None, False)])
def test_a_packed_llama_gives_what_its_dense_copy_gives(scheme: IntScheme) -> None:
    model = compress(llama(), scheme)
    packed = pack_model(model)
    same(packed.hf_model, model.hf_model)
    assert packed.report.packed_share == 1.0
    kernel = "int8" if scheme.group_size is None else "int4"
    assert packed.report.label.startswith(f"packed {kernel}")
    assert all(
        isinstance(packed.hf_model.get_submodule(name), PackedLinear) for name in model.weights
    )


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="needs VNNI instructions")
def test_inputs_are_rounded_only_if_asked_and_it_is_said() -> None:
    model = compress(llama(), IntScheme(8, None, True))
    packed = pack_model(model, int8_inputs=True)
    same(packed.hf_model, model.hf_model, 0.05)
    assert packed.report.label.startswith("packed int8")
    assert packed.report.label.endswith(" with int8 inputs")
    assert packed.report.facts()["notes"] == {"inputs are rounded to 8 bits": 14}
    assert packed.hf_model.model.layers[0].mlp.up_proj.product.kernel.int8_inputs
    assert not pack_model(model).hf_model.model.layers[0].mlp.up_proj.product.kernel.int8_inputs


def test_rounded_inputs_need_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_vnni_supported", lambda: False)
    with pytest.raises(ConfigError, match="VNNI"):
        pack_model(llama(), int8_inputs=True)


def test_whose_kernels_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "there is no C compiler"
    for module in ("native", "model"):
        monkeypatch.setattr(
            f"workbench.runtime.packed.{module}.native_library", lambda: (None, reason)
        )
    model = compress(llama())
    packed = pack_model(model)
    assert packed.report.label == "packed int4"
    assert packed.report.facts()["kernels"] == f"torch's; the compiled ones: {reason}"
    same(packed.hf_model, model.hf_model)


def test_layers_of_one_input_are_one_product() -> None:
    model = compress(llama())
    packed = pack_model(model).hf_model
    for group in shared_inputs(model.hf_model):
        products = {id(packed.get_submodule(name).product) for name in group.names}
        assert len(products) == 1
    attention = packed.model.layers[0].self_attn
    calls = []
    inner = attention.q_proj.product.kernel.few
    attention.q_proj.product.kernel.few = lambda x: calls.append(1) or inner(x)
    x = torch.randn(1, 3, 64).bfloat16()
    first = [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]
    assert len(calls) == 1
    assert attention.q_proj.product._waiting == (None, {})  # nothing is kept
    assert torch.equal(attention.k_proj(x), first[1])
    other = attention.v_proj(x + 1)
    assert not torch.equal(other, first[2])


def test_the_given_model_is_not_changed() -> None:
    model = compress(llama())
    before = model.fingerprint
    packed = pack_model(model)
    assert model.fingerprint == before
    assert model.dtype == torch.float32
    assert packed.hf_model is not model.hf_model
    assert packed.hf_model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_gpt2_and_its_transposed_layers() -> None:
    model = load_model(tiny_model("GPT2LMHeadModel"), tiny_tokenizer())
    for name, site in find_linears(model.hf_model).items():
        model.set_weight(name, rounded(site.matrix, IntScheme(8, None, True)))
    packed = pack_model(model)
    assert packed.report.label.startswith("packed int8")
    same(packed.hf_model, model.hf_model)


def test_an_encoder() -> None:
    model = load_model(tiny_model("BertModel"), tiny_tokenizer())
    for name, site in find_linears(model.hf_model).items():
        if site.shape[1] % 16 == 0:
            model.set_weight(name, rounded(site.matrix, IntScheme(8, None, True)))
    packed = pack_model(model)
    with torch.no_grad():
        given = packed.hf_model(IDS).last_hidden_state.float()
        expected = model.hf_model(IDS).last_hidden_state
    assert (given - expected).abs().max() < 0.06
    assert 0 < packed.report.packed_share < 1
    assert packed.report.facts()["dense_because"] == {"not compressed": 2}


def test_what_does_not_fit_runs_dense_and_is_counted() -> None:
    model = compress(llama())
    odd = "model.layers.0.mlp.down_proj"
    pruned = "model.layers.1.mlp.down_proj"
    five = "model.layers.1.self_attn.o_proj"
    matrix = {name: site.matrix for name, site in find_linears(model.hf_model).items()}
    model.set_weight(odd, rounded(matrix[odd], IntScheme(4, 20, True)))
    model.set_weight(pruned, PrunedWeight(matrix[pruned].half(), Sparsity(0.5)))
    model.set_weight(five, rounded(matrix[five], IntScheme(5, 32, True)))
    packed = pack_model(model)
    same(packed.hf_model, model.hf_model)
    facts = packed.report.facts()
    assert facts["dense_layers"] == 3
    assert facts["packed_layers"] == 11
    assert sum(facts["dense_because"].values()) == 3
    assert any("pruned" in reason for reason in facts["dense_because"])
    assert "dense bfloat16" in packed.report.label
    dense = sum(matrix[name].numel() for name in (odd, pruned, five))
    share = 1 - dense / sum(m.numel() for m in matrix.values())
    assert packed.report.packed_share == pytest.approx(share)


def test_short_codes_are_noted() -> None:
    notes = pack_model(compress(llama(), IntScheme(3, 32, True))).report.facts()["notes"]
    assert notes == {"3-bit codes run as 4-bit ones": 14}


def test_a_base_model_is_dense_bfloat16() -> None:
    packed = pack_model(llama())
    assert packed.report.label == "dense bfloat16"
    assert packed.hf_model.dtype == torch.bfloat16
    same(packed.hf_model, llama().hf_model)


def test_inputs_are_divided_first() -> None:
    model = llama()
    name = "model.layers.0.mlp.down_proj"
    weight = rounded(find_linears(model.hf_model)[name].matrix, INT4)
    scales = torch.rand(96) + 0.5
    changed = QuantizedWeight(weight.codes, weight.scales, weight.zeros, INT4, scales.half())
    model.set_weight(name, changed)
    packed = pack_model(model)
    same(packed.hf_model, model.hf_model)
    layer = packed.hf_model.get_submodule(name)
    x = torch.randn(2, 96).bfloat16()
    expected = x.float() @ changed.dequantize().T
    assert (layer(x).float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_low_rank_correction_is_added() -> None:
    model = llama()
    names = ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"]
    for name in names:
        weight = rounded(find_linears(model.hf_model)[name].matrix, INT4)
        left, right = torch.randn(96, 4).half(), torch.randn(4, 64).half() / 10
        model.set_weight(name, CorrectedWeight(weight, left, right))
    packed = pack_model(model)
    same(packed.hf_model, model.hf_model)
    assert packed.report.facts()["packed_layers"] == 2


@pytest.mark.parametrize("scheme", [IntScheme(8, None, True), IntScheme(4, 32, True)])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_head(scheme: IntScheme, tied: bool) -> None:
    model = compress(llama(tie_word_embeddings=tied))
    table = model.hf_model.model.embed_tokens.weight.detach().float()
    model.set_weight("model.embed_tokens", rounded(table, scheme))
    packed = pack_model(model)
    assert isinstance(packed.hf_model.model.embed_tokens, PackedEmbedding)
    assert isinstance(packed.hf_model.lm_head, PackedLinear) is tied
    same(packed.hf_model, model.hf_model)


def test_a_tied_int8_table_is_in_memory_once() -> None:
    model = compress(llama())
    table = model.hf_model.model.embed_tokens.weight.detach().float()
    dense = pack_model(model).resident_bytes
    model.set_weight("model.embed_tokens", rounded(table, IntScheme(8, None, True)))
    saved = dense - pack_model(model).resident_bytes
    assert saved == table.numel() - 2 * len(table)


def test_packing_saves_memory() -> None:
    assert pack_model(compress(llama())).resident_bytes < 0.6 * pack_model(llama()).resident_bytes


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        pack_model(llama(), dtype=torch.float16)


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPT2LMHeadModel"])
def test_dense_layers_in_float32_beside_packed_ones(kind: str) -> None:
    model = llama() if "Llama" in kind else load_model(tiny_model(kind), tiny_tokenizer())
    sites = find_linears(model.hf_model)
    for name in list(sites)[::2]:
        model.set_weight(name, rounded(sites[name].matrix, IntScheme(8, None, True)))
    name = "model.embed_tokens" if "Llama" in kind else "transformer.wte"
    model.set_weight(name, rounded(model.site(name).matrix, IntScheme(8, None, True)))
    packed = pack_model(model, dtype=torch.float32)
    same(packed.hf_model, model.hf_model)
    assert packed.hf_model.dtype == torch.float32
    assert packed.report.label.endswith("% dense float32")
    assert pack_model(llama(), dtype=torch.float32).report.label == "dense float32"


@pytest.mark.parametrize(
    ("device", "avx512", "amx", "expected"),
    [
        ("cpu", True, False, torch.bfloat16),
        ("cpu", False, True, torch.bfloat16),
        ("cpu", False, False, torch.float32),
        ("mps", True, True, torch.float32),
        ("cuda", False, False, torch.bfloat16),
    ],
)
def test_dense_layers_take_the_dtype_with_instructions(
    device: str, avx512: bool, amx: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    assert fast_dtype(torch.device(device)) == expected


@pytest.mark.parametrize("scheme", [INT4, IntScheme(8, None, False)])
def test_inputs_of_any_strides_on_torchs_kernels(
    scheme: IntScheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("native", "model"):
        monkeypatch.setattr(
            f"workbench.runtime.packed.{module}.native_library", lambda: (None, "off")
        )
    packed = pack_model(compress(llama(), scheme)).hf_model
    layer = packed.model.layers[0].mlp.up_proj
    for x in (torch.randn(3, 5, 64).bfloat16()[:, -1:], torch.randn(64, 3).bfloat16().T):
        assert not x.is_contiguous()
        assert torch.equal(layer(x), layer(x.contiguous()))


def test_a_packed_head_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("native", "model"):
        monkeypatch.setattr(
            f"workbench.runtime.packed.{module}.native_library", lambda: (None, "off")
        )
    model = compress(llama())
    table = model.site("model.embed_tokens").matrix
    model.set_weight("model.embed_tokens", rounded(table, IntScheme(8, None, True)))
    packed: Any = pack_model(model).hf_model
    ids = torch.cat([IDS, IDS.flip(1)])
    given = packed.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    with torch.no_grad():
        for row in given:  # every token is the likeliest, up to rounding
            for stop in range(ids.shape[1], len(row)):
                logits = model.hf_model(row[None, :stop]).logits[0, -1]
                assert logits[row[stop]] > logits.max() - 0.03 * logits.abs().max()


@pytest.mark.parametrize("line", range(1, 9))
def test_another_thread_between_any_two_lines(line: int) -> None:
    packed = pack_model(compress(llama())).hf_model
    attention = packed.model.layers[0].self_attn
    layers = (attention.q_proj, attention.k_proj, attention.v_proj)
    mine, theirs = torch.randn(2, 1, 3, 64).bfloat16().unbind()
    expected = [layer(mine) for layer in layers]
    left = 0

    def interrupt(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code is not SharedProduct.take.__code__:
            return None
        left -= event == "line"
        if left == 0 and event == "line":
            layers[0](theirs)  # what another thread would do here
        return interrupt

    def interrupted(layer: nn.Module) -> torch.Tensor:
        nonlocal left
        left = line
        sys.settrace(interrupt)
        try:
            return layer(mine)
        finally:
            sys.settrace(before)

    before = sys.gettrace()
    for layer, right in zip(layers, expected, strict=True):
        assert torch.equal(interrupted(layer), right)
