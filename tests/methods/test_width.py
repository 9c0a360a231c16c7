from __future__ import annotations

import pytest
import torch

from tests.calibration.test_calibrate import OPTIONS
from tests.structured import OutputsTask, loaded, outputs, run
from tests.tiny import ARCHITECTURES, SMALL
from workbench.calibration.calibrate import Calibrator
from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.methods.width import round_kept
from workbench.models.layers import weight_of
from workbench.recipes import WidthPruning

# Neurons of one block before, and the names of what holds them: inputs, output.
NEURONS = {
    "Llama": (48, ("gate_proj", "up_proj"), "down_proj"),
    "Phi3": (48, ("gate_up_proj",), "down_proj"),
    "OPT": (64, ("fc1",), "fc2"),
    "GPT2": (128, ("c_fc",), "mlp.c_proj"),
    "Bert": (64, ("intermediate.dense",), ".output.dense"),
    "ModernBert": (64, ("mlp.Wi",), "mlp.Wo"),
}
EXPERTS = ("Mixtral", "Qwen2Moe", "Qwen3Moe")
TWO_STACKS = ("T5", "BartForConditionalGeneration")
REFUSED = dict.fromkeys(EXPERTS, "over experts") | dict.fromkeys(TWO_STACKS, "encoder-decoder")
REFUSED["ViT"] = "not among the architectures"
WITH_HEADS = ("Llama", "Llama-MHA-tied", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi3")


def find(model, suffix):
    """The modules of every block whose names end so; attention's output is not meant."""
    return [
        module
        for name, module in model.hf_model.named_modules()
        if f".{name}".endswith(suffix) and "attention.output" not in name
    ]


def kill_neurons(model, kind, dead):
    """Let some neurons of every block say nothing at all."""
    n_all, inputs, _ = NEURONS[kind]
    for suffix in inputs:
        for module in find(model, suffix):
            n_rows = weight_of(module).shape[0]
            rows = [i + part for i in dead for part in range(0, n_rows, n_all)]
            transposed = module.weight.shape[0] != n_rows
            with torch.no_grad():
                (module.weight.T if transposed else module.weight)[rows] = 0
                if getattr(module, "bias", None) is not None:
                    module.bias[rows] = 0


@pytest.mark.parametrize("compensate", [True, False])
@pytest.mark.parametrize("kind", NEURONS)
def test_dead_neurons_go_first_and_cost_nothing(kind, compensate, tmp_path):
    model = loaded(kind)
    n_all, inputs, output = NEURONS[kind]
    dead = list(range(1, n_all, 4))
    kill_neurons(model, kind, dead)
    result = run(model, WidthPruning(0.25, compensate=compensate), tmp_path)
    assert result.facts["structure"][0]["neurons"] == [n_all, n_all * 3 // 4]
    assert torch.allclose(outputs(result.model), outputs(model), atol=1e-5)
    kept = [i for i in range(n_all) if i not in dead]
    for old, new in zip(find(model, output), find(result.model, output), strict=True):
        assert torch.allclose(weight_of(new), weight_of(old)[:, kept], atol=1e-5)
    for suffix in inputs:
        for old, new in zip(find(model, suffix), find(result.model, suffix), strict=True):
            parts = weight_of(old).shape[0] // n_all
            rows = [i + part * n_all for part in range(parts) for i in kept]
            assert torch.equal(weight_of(new), weight_of(old)[rows])


@pytest.mark.parametrize("kind", ["Llama", "Phi3"])
def test_heads_that_say_nothing_go_first_and_cost_nothing(kind, tmp_path):
    """Of two key-value groups the first is silent: its values are zero."""
    model = loaded(kind, num_key_value_heads=2)
    with torch.no_grad():
        for block in model.hf_model.model.layers:
            if kind == "Llama":
                block.self_attn.v_proj.weight[:8] = 0
            else:
                block.self_attn.qkv_proj.weight[32 + 16 : 32 + 16 + 8] = 0
    result = run(model, WidthPruning(0.5, neurons=False, heads=True), tmp_path)
    fact = result.facts["structure"][0]
    assert (fact["heads"], fact["key_value_heads"]) == ([4, 2], [2, 1])
    assert "neurons" not in fact
    assert torch.allclose(outputs(result.model), outputs(model), atol=1e-5)
    config = result.model.hf_model.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 8)


def test_whole_groups_of_heads_that_matter_stay(tmp_path):
    """Heads 2 and 3 share the second key and value; it is the first pair that is silent."""
    model = loaded("Llama")
    with torch.no_grad():
        for block in model.hf_model.model.layers:
            block.self_attn.o_proj.weight[:, :16] = 0
    old = model.hf_model.model.layers[0].self_attn
    new = run(model, WidthPruning(0.5, neurons=False, heads=True), tmp_path)
    new = new.model.hf_model.model.layers[0].self_attn
    assert torch.equal(new.q_proj.weight, old.q_proj.weight[16:])
    assert torch.equal(new.k_proj.weight, old.k_proj.weight[8:])
    assert torch.equal(new.v_proj.weight, old.v_proj.weight[8:])


@pytest.mark.parametrize("kind", ["Llama", "OPT", "GPT2", "Bert"])
def test_refitting_leaves_less_error(kind, tmp_path):
    model = loaded(kind)
    errors = {}
    for compensate in (True, False):
        step = WidthPruning(0.5, compensate=compensate)
        found = run(model, step, tmp_path, scale=25).facts["structure"][0]["output_errors"]
        errors[compensate] = found
    assert errors[True].keys() == errors[False].keys()
    assert len(errors[True]) == 2
    for name, error in errors[True].items():
        assert error <= errors[False][name]
    assert sum(errors[True].values()) < 0.95 * sum(errors[False].values())


def test_the_refitted_layer_is_the_least_squares_solution(tmp_path):
    """Fitted to the outputs themselves, by torch, on the tokens that solvers see."""
    model = loaded("Llama")
    step = WidthPruning(0.5, damping=1e-6)
    result = run(model, step, tmp_path)
    name = "model.layers.0.mlp.down_proj"
    inputs = []
    hook = model.hf_model.get_submodule(name).register_forward_pre_hook(
        lambda _m, args: inputs.append(args[0][0])
    )
    rows = Calibrator(OutputsTask(), OPTIONS, folder=tmp_path).windows(model)["solve"]
    with torch.no_grad():
        for row in rows:
            model.hf_model(input_ids=torch.tensor([row]))
    hook.remove()
    x = torch.cat(inputs).double()
    weight = model.hf_model.get_submodule(name).weight.double()
    energy = x.square().mean(0) * weight.square().sum(0)
    keep = energy.argsort(descending=True)[:24].sort().values
    solution = torch.linalg.lstsq(x[:, keep], x @ weight.T).solution.T
    found = result.model.hf_model.get_submodule(name).weight.double()
    assert torch.allclose(found, solution, rtol=0.02, atol=1e-3)


def test_random_depends_on_the_seed_only(tmp_path):
    model = loaded("Llama")

    def chosen(seed):
        step = WidthPruning(0.5, criterion="random", compensate=False, seed=seed)
        made = run(model, step, tmp_path).model
        return [m.weight for m in find(made, "up_proj")]

    a, again, b = chosen(0), chosen(0), chosen(1)
    assert torch.equal(a[0], again[0])
    assert not torch.equal(a[0], b[0])
    assert not torch.equal(a[0], a[1])


@pytest.mark.parametrize(
    ("n_all", "ratio", "kept", "multiple"),
    [
        (640, 0.25, 480, 32),
        (1536, 0.3, 1088, 32),  # 1,075.2 asked for
        (100, 0.25, 80, 16),  # a multiple of 32 would keep 96
        (24, 0.25, 18, 1),  # a multiple of 16 would keep all
        (64, 0.02, 63, 1),
        (64, 0.95, 4, 1),
        (1024, 0.95, 64, 32),
        (10, 0.95, 1, 1),
    ],
)
def test_kept_neurons_are_a_multiple_that_kernels_like(n_all, ratio, kept, multiple):
    rounded = round_kept(n_all, ratio)
    assert (rounded.kept, rounded.multiple) == (kept, multiple)
    assert kept >= n_all * (1 - ratio) - 1e-9, "more was removed than asked for"


def test_rounding_to_nothing_is_refused(tmp_path):
    assert round_kept(50, 0.01) is None
    with pytest.raises(ConfigError, match=r"removes none of the 48 neurons .* at least 0\.021"):
        run(loaded("Llama"), WidthPruning(0.01), tmp_path)


def test_head_counts_that_the_configuration_refuses_are_not_made(tmp_path):
    """Llama's hidden size must be a multiple of its heads: of 4 heads, 3 are not accepted."""
    model = loaded("Llama-MHA-tied")
    result = run(model, WidthPruning(0.74, neurons=False, heads=True), tmp_path)
    assert result.facts["structure"][0]["heads"] == [4, 2]
    with pytest.raises(ConfigError, match=r"accepts 2, 1\. .* the ratios 0\.5, 0\.75"):
        run(model, WidthPruning(0.25, heads=True), tmp_path)


def test_a_single_key_value_head_cannot_go(tmp_path):
    model = loaded("LlamaForCausalLM")
    with pytest.raises(UnsupportedArchitectureError, match="has 1 key-value head, which"):
        run(model, WidthPruning(0.5, heads=True), tmp_path)


@pytest.mark.parametrize("kind", [*ARCHITECTURES, *SMALL])
def test_every_architecture_works_or_is_refused_clearly(kind, tmp_path):
    model = loaded(kind)
    if kind in REFUSED:
        with pytest.raises(UnsupportedArchitectureError, match=REFUSED[kind]):
            run(model, WidthPruning(0.25), tmp_path)
        return
    result = run(model, WidthPruning(0.25), tmp_path)
    before, after = result.facts["structure"][0]["neurons"]
    assert after == before * 3 // 4
    assert torch.isfinite(outputs(result.model)).all()
    assert result.model.n_parameters < model.n_parameters
    assert result.model.size_bytes == 4 * result.model.n_parameters + _buffers(result.model)


def _buffers(model):
    stored = model.hf_model.state_dict()
    parameters = dict(model.hf_model.named_parameters(remove_duplicate=False))
    return sum(t.numel() * t.element_size() for n, t in stored.items() if n not in parameters)


@pytest.mark.parametrize("kind", [k for k in ARCHITECTURES if k not in ("T5", "ViT")])
def test_heads_of_every_architecture_work_or_are_refused_clearly(kind, tmp_path):
    model = loaded(kind)
    step = WidthPruning(0.5, neurons=False, heads=True)
    if kind in WITH_HEADS or kind in EXPERTS:
        result = run(model, step, tmp_path)
        before, after = result.facts["structure"][0]["heads"]
        assert after == before // 2
        assert torch.isfinite(outputs(result.model)).all()
        return
    shared = kind == "Gemma"  # all heads share one key and value
    words = "has 1 key-value head, which" if shared else "cannot state fewer heads"
    with pytest.raises(UnsupportedArchitectureError, match=words):
        run(model, step, tmp_path)
