import numpy as np
import pytest

from tests.tiny import tiny_model, tiny_tokenizer
from tests.toy import texts
from workbench.calibration.calibrate import CalibrationOptions, Calibrator
from workbench.compression.compress import compress
from workbench.errors import CancelledError
from workbench.models.load import load_model
from workbench.prediction.cost_table import CostTable
from workbench.prediction.predict import size_bytes
from workbench.prediction.tabulate import tabulate
from workbench.progress import Monitor
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    Cast,
    LowRankCorrection,
    Mixed,
    QuantizeEmbeddings,
    SparseGPT,
    Wanda,
)
from workbench.recipes.recipe import Recipe
from workbench.tasks import LanguageModeling

OPTIONS = CalibrationOptions(solve_tokens=512, judge_tokens=256, sequence_length=24)
STEPS = (
    *(method(bits, group_size=8) for method in (RTN, GPTQ, AWQ) for bits in (2, 4)),
    Wanda(0.5),
    QuantizeEmbeddings(4),
)


def prepared(architecture, folder):
    task = LanguageModeling(texts(), sequence_length=32, name="toy")
    model = task.bind(load_model(tiny_model(architecture), tiny_tokenizer(), device="cpu"))
    return model, Calibrator(task, OPTIONS, folder=folder / "statistics")


@pytest.fixture
def llama(tmp_path):
    model, calibrator = prepared("LlamaForCausalLM", tmp_path)
    return model, calibrator, tabulate(model, calibrator, tmp_path / "t.json", STEPS)


def test_costs_are_finite_and_fall_with_the_bits(llama):
    _, _, table = llama
    for method in (RTN, GPTQ, AWQ):
        few, many = (table.columns[method(bits, group_size=8)] for bits in (2, 4))
        assert np.isfinite(few).all()
        assert (few > many).all()
    gptq, rtn = (table.columns[m(2, group_size=8)].sum() for m in (GPTQ, RTN))
    assert gptq < rtn
    assert table.whole[QuantizeEmbeddings(4)] > 0


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GPT2LMHeadModel", "OPTForCausalLM"])
def test_sizes_are_exact(architecture, tmp_path):
    model, calibrator = prepared(architecture, tmp_path)
    table = tabulate(model, calibrator, tmp_path / "t.json", [RTN(4, group_size=8)])
    keys = [group.key for group in table.groups]
    mixed = [GPTQ(2, group_size=8), AWQ(4, group_size=8)]
    for steps in (
        [],
        [RTN(3, group_size=8)],
        [GPTQ(4, group_size=None, symmetric=True)],
        [AWQ(4, group_size=8)],
        [Wanda(0.5), GPTQ(3, group_size=16)],
        [Cast(), AWQ(2, group_size=8)],
        [GPTQ(4, group_size=8), QuantizeEmbeddings(8), Cast()],
        [AWQ(4, group_size=8), LowRankCorrection(4)],
        [SparseGPT(0.5, bits=4, group_size=8)],
        [Mixed(mixed, {key: i % 2 for i, key in enumerate(keys)})],
        [Mixed(mixed, dict.fromkeys(keys[1::2], 1))],
    ):
        recipe = Recipe.of(steps)
        made = compress(model, recipe, calibrator).model
        assert size_bytes(table, recipe) == made.size_bytes, recipe.label


def test_a_cancelled_table_goes_on_where_it_stopped(tmp_path):
    model, calibrator = prepared("LlamaForCausalLM", tmp_path)
    calls = []

    def stop():
        calls.append(1)
        return (tmp_path / "t.json").exists()

    with pytest.raises(CancelledError):
        tabulate(model, calibrator, tmp_path / "t.json", STEPS, monitor=Monitor(None, stop))
    first, *more = CostTable.load(tmp_path / "t.json").columns
    assert first == STEPS[0]
    assert len(more) < len(STEPS) - 1
    kept = CostTable.load(tmp_path / "t.json").columns[first]
    table = tabulate(model, calibrator, tmp_path / "t.json", STEPS)
    assert set(table.columns) | set(table.whole) == set(STEPS)
    np.testing.assert_array_equal(table.columns[first], kept)


def test_the_model_is_left_as_it_was(llama):
    model, _, _ = llama
    fresh = load_model(tiny_model("LlamaForCausalLM"), tiny_tokenizer(), device="cpu")
    for a, b in zip(model.hf_model.parameters(), fresh.hf_model.parameters(), strict=True):
        assert a.equal(b)
    assert model.weights == {}


def test_what_another_process_has_written_meanwhile_is_kept(tmp_path):
    model, calibrator = prepared("LlamaForCausalLM", tmp_path)
    path = tmp_path / "t.json"
    tabulate(model, calibrator, path, [RTN(4, group_size=8)])

    def other(progress):
        if progress.stage == "predict" and progress.done == 1:
            tabulate(model, calibrator, path, [Wanda(0.5)])

    ours = [RTN(4, group_size=8), RTN(2, group_size=8)]
    table = tabulate(model, calibrator, path, ours, monitor=Monitor(other))
    assert {*ours, Wanda(0.5)} == set(table.columns) == set(CostTable.load(path).columns)


def test_one_step_that_fails_leaves_the_others(tmp_path, monkeypatch):
    from workbench.errors import CompressionError
    from workbench.prediction import tabulate as module

    model, calibrator = prepared("LlamaForCausalLM", tmp_path)
    real = module.step_costs

    def failing(*args, **kwargs):
        if isinstance(args[3][0], Wanda):
            raise CompressionError("no usable weight")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "step_costs", failing)
    steps = [Wanda(0.5), RTN(4, group_size=8)]
    table = tabulate(model, calibrator, tmp_path / "t.json", steps)
    assert table.reasons == {Wanda(0.5): "no usable weight"}
    assert CostTable.load(tmp_path / "t.json").reasons == table.reasons
    assert list(table.columns) == [RTN(4, group_size=8)]
