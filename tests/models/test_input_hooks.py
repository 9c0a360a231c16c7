"""What enters a layer or an expert, against the model's own arithmetic."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.tiny import tiny_model
from workbench.models.input_hooks import hearing_experts, listening
from workbench.models.layers import shared_inputs
from workbench.models.weight_access import is_fused_experts

IDS = torch.randint(4, 260, (3, 9), generator=torch.Generator().manual_seed(0))


def gpt_oss():
    """Transposed experts with biases, gate and up interleaved, an activation of their own."""
    config = transformers.GptOssConfig(
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        vocab_size=260,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = transformers.GptOssForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def heard(model, groups):
    """Return every group's inputs and the tokens that they are of, in the order of calls."""
    inputs: dict[str, list[Tensor]] = {group.key: [] for group in groups}
    tokens: dict[str, list[Tensor | None]] = {group.key: [] for group in groups}

    def callback(key: str, x: Tensor, which: Tensor | None = None) -> None:
        inputs[key].append(x.detach().clone())
        tokens[key].append(which)

    with listening(model, groups, callback), torch.no_grad():
        model(input_ids=IDS)
    return inputs, tokens


class Recorder(torch.overrides.TorchFunctionMode):
    """Sees every product with a slice of an expert's stack, in transformers' own loop."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (nn.functional.linear, Tensor.matmul, Tensor.__matmul__):
            self.seen[args[1].data_ptr(), tuple(args[1].shape)] = args[0].clone()
        return func(*args, **(kwargs or {}))


def in_order(rows):
    """The loop takes the tokens whose first choice an expert is first."""
    return rows[rows[:, 0].argsort()]


@pytest.mark.parametrize("kernel", ["eager", "grouped_mm", "batched_mm"])
@pytest.mark.parametrize("kind", ["Mixtral", "Qwen2Moe", "GptOss"])
def test_experts_are_heard_as_the_loop_feeds_them(kind, kernel):
    model = (gpt_oss() if kind == "GptOss" else tiny_model(kind)).eval()
    groups = shared_inputs(model)
    model.set_experts_implementation("eager")
    with Recorder() as recorder, torch.no_grad():
        model(input_ids=IDS)
    model.set_experts_implementation(kernel)
    inputs, tokens = heard(model, groups)
    compared = 0
    for group in groups:
        if not group.routed:
            continue
        owner, stack, expert = group.key.rsplit(".", 2)
        weight = getattr(model.get_submodule(owner), stack)[int(expert)]
        expected = recorder.seen.get((weight.data_ptr(), tuple(weight.shape)))
        if expected is None:
            assert inputs[group.key] == []
            continue
        (x,), (which,) = inputs[group.key], tokens[group.key]
        assert x.shape[1] == group.in_features
        assert torch.allclose(in_order(x), in_order(expected), atol=1e-5)
        assert len(which) == len(x)
        assert int(which.max()) < IDS.numel()
        compared += 1
    assert compared > 8


def test_a_layer_that_is_called_twice_is_heard_twice():
    """DeBERTa's query and key read hidden states and then the table of relative positions."""
    model = tiny_model("DebertaV2").eval()
    groups = shared_inputs(model)
    by_name = {name.rpartition(".")[2]: group for group in groups[:2] for name in group.names}
    assert by_name["query_proj"] is by_name["key_proj"]
    assert by_name["value_proj"] is not by_name["key_proj"]
    inputs, _ = heard(model, groups)
    # The group's first layer is the query: tokens, then 2 * position_buckets positions.
    assert [x.shape for x in inputs[by_name["query_proj"].key]] == [(3, 9, 32), (1, 16, 32)]
    assert [x.shape for x in inputs[by_name["value_proj"].key]] == [(3, 9, 32)]


def test_a_forward_of_another_library_is_there_again():
    model = tiny_model("Mixtral").eval()
    experts = next(m for m in model.modules() if is_fused_experts(m))
    other = partial(type(experts).forward, experts)
    experts.forward = other
    with hearing_experts(model, lambda *_: None):
        assert experts.forward is not other
    assert experts.forward is other


def test_hooks_are_gone_afterwards():
    model = tiny_model("Mixtral").eval()
    heard(model, shared_inputs(model))
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen2Moe", "GptOss"])
def test_gradients_at_experts_outputs_are_those_of_their_weights(kind):
    """dL/dW of an expert is Σ g xᵀ over its tokens: autograd through the fused stack agrees."""
    model = (gpt_oss() if kind == "GptOss" else tiny_model(kind)).eval()
    groups = [group for group in shared_inputs(model) if group.routed]
    inputs, _ = heard(model, groups)
    expected = model(input_ids=IDS).logits.logsumexp(-1).sum()
    expected.backward()
    gradients = {}

    def callback(name: str, y: Tensor, tokens: Tensor) -> None:
        assert len(y) == len(tokens)
        y.register_hook(lambda gradient: gradients.__setitem__(name, gradient))

    with hearing_experts(model, callback):
        apart = model(input_ids=IDS).logits.logsumexp(-1).sum()
        torch.autograd.backward(apart, inputs=list(model.parameters()))
    assert torch.allclose(apart, expected, rtol=1e-5)
    assert all("forward" not in vars(module) for module in model.modules())

    assert len(gradients) > 8
    for name, g in gradients.items():
        owner, stack, expert = name.rsplit(".", 2)
        module = model.get_submodule(owner)
        x = inputs[name][0]
        product = x.T @ g if module.is_transposed else g.T @ x
        total = getattr(module, stack).grad[int(expert)] / 2  # of both passes
        assert torch.allclose(product, total, rtol=1e-3, atol=1e-5), name
