from __future__ import annotations

import shutil

import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import (
    CalibrationInputs,
    CalibrationOptions,
    Calibrator,
    calibrate,
)
from workbench.errors import CalibrationError, CancelledError, ConfigError
from workbench.models.input_hooks import listening
from workbench.models.layers import shared_inputs
from workbench.models.load import load_model
from workbench.progress import Monitor
from workbench.tasks import Task


class RowsTask:
    """Stands in for a task: token rows of different lengths."""

    name = "rows"
    fingerprint = "rows-1"

    def __init__(self, n_rows: int = 40) -> None:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(3, 20, (n_rows,), generator=generator).tolist()
        self.rows = [torch.randint(4, 260, (n,), generator=generator).tolist() for n in lengths]

    def calibration_windows(self, model, *, sequence_length, seed):
        return [row[:sequence_length] for row in self.rows]

    calibration_examples = Task.calibration_examples


OPTIONS = CalibrationOptions(
    solve_tokens=200, judge_tokens=100, sequence_length=32, batch_tokens=64
)


@pytest.fixture(params=["LlamaForCausalLM", "GPT2LMHeadModel", "BertModel"])
def model(request):
    return load_model(tiny_model(request.param), tiny_tokenizer(), device="cpu")


def inputs_of(model, name, rows):
    """The inputs of one layer, row by row without any padding."""
    seen = []
    hook = model.hf_model.get_submodule(name).register_forward_pre_hook(
        lambda _m, args: seen.append(args[0][0])
    )
    with torch.no_grad():
        for row in rows:
            model.hf_model(input_ids=torch.tensor([row]))
    hook.remove()
    return torch.cat(seen)


def test_sums_equal_the_inputs_themselves(model, tmp_path):
    """Batched and padded, the sums are those of every row run alone: padding never counts."""
    task = RowsTask()
    statistics = calibrate(model, task, OPTIONS, folder=tmp_path)
    n_solve = statistics.n_tokens["solve"]
    assert 200 <= n_solve < 220
    split = next(i for i in range(40) if sum(map(len, task.rows[:i])) == n_solve)
    used = 0
    for last in range(split, 41):
        used = sum(map(len, task.rows[split:last]))
        if used == statistics.n_tokens["judge"]:
            break
    assert used == statistics.n_tokens["judge"] > 0
    for group in (statistics.groups[0], statistics.groups[-1]):
        for half, rows in (("solve", task.rows[:split]), ("judge", task.rows[split:last])):
            x = inputs_of(model, group.key, rows)
            got = getattr(statistics[group.key], half)
            assert len(x) == got.n_tokens
            assert torch.allclose(got.gram, x.T @ x, rtol=1e-3, atol=1e-3)
            assert torch.allclose(got.abs_sum, x.abs().sum(0), rtol=1e-3, atol=1e-3)


def test_reopened_not_collected_again(model, tmp_path):
    first = calibrate(model, RowsTask(), OPTIONS, folder=tmp_path)
    reports = []
    again = calibrate(model, RowsTask(), OPTIONS, folder=tmp_path, monitor=Monitor(reports.append))
    assert not reports
    assert again.key == first.key
    key = first.groups[0].key
    assert torch.equal(again[key].solve.gram, first[key].solve.gram)
    other = CalibrationOptions(**{**vars(OPTIONS), "seed": 1})
    assert calibrate(model, RowsTask(), other, folder=tmp_path).key != first.key


def test_statistics_that_are_cut_off_are_not_read(model, tmp_path):
    """What is mapped beyond the end of a file would end the process."""
    statistics = calibrate(model, RowsTask(), OPTIONS, folder=tmp_path)
    key, other = statistics.groups[0].key, statistics.groups[1].key
    before = statistics[key].solve.gram.clone()
    assert statistics[key] is statistics[key]
    for file in tmp_path.glob("*/0000.*.f32"):
        with file.open("r+b") as stream:
            stream.truncate(100)
    for found in (statistics, calibrate(model, RowsTask(), OPTIONS, folder=tmp_path)):
        with pytest.raises(CalibrationError, match=r"has 100 bytes.*Delete the folder"):
            found[key]
        assert found[other].solve.gram.isfinite().all()
    shutil.rmtree(tmp_path / statistics.key)
    again = calibrate(model, RowsTask(), OPTIONS, folder=tmp_path)
    assert torch.equal(again[key].solve.gram, before)


def test_cancelling_leaves_nothing_behind(model, tmp_path):
    calls = []
    monitor = Monitor(calls.append, lambda: len(calls) > 2)
    with pytest.raises(CancelledError):
        calibrate(model, RowsTask(), OPTIONS, folder=tmp_path, monitor=monitor)
    assert list(tmp_path.iterdir()) == []


def test_merging_is_addition(model, tmp_path):
    statistics = calibrate(model, RowsTask(), OPTIONS, folder=tmp_path)
    group = statistics[statistics.groups[0].key]
    both = group.solve + group.judge
    assert both.n_tokens == group.solve.n_tokens + group.judge.n_tokens
    assert torch.allclose(both.gram, group.solve.gram + group.judge.gram)


def test_too_few_tokens_is_an_error(model, tmp_path):
    with pytest.raises(CalibrationError, match="Give more or longer calibration texts"):
        calibrate(model, RowsTask(3), OPTIONS, folder=tmp_path)


def test_few_tokens_are_shared_between_the_halves(model, tmp_path):
    statistics = calibrate(model, RowsTask(20), OPTIONS, folder=tmp_path)
    assert statistics.n_tokens["solve"] < 200
    assert statistics.n_tokens["judge"] > 20


def test_values_that_are_not_finite_are_an_error(tmp_path):
    hf_model = tiny_model("LlamaForCausalLM")
    with torch.no_grad():
        hf_model.model.layers[0].mlp.up_proj.weight.fill_(torch.inf)
    model = load_model(hf_model, tiny_tokenizer(), device="cpu")
    with pytest.raises(CalibrationError, match="not finite"):
        calibrate(model, RowsTask(), OPTIONS, folder=tmp_path)


def alone(model, keys, rows):
    """What entered each group when every row was run by itself, without any padding."""
    groups = [group for group in shared_inputs(model.hf_model) if group.key in keys]
    seen = {key: [] for key in keys}
    with (
        listening(model.hf_model, groups, lambda key, x, *_: seen[key].append(x.flatten(0, -2))),
        torch.no_grad(),
    ):
        for row in rows:
            model.hf_model.base_model(input_ids=torch.tensor([row]))
    return {key: torch.cat(found) for key, found in seen.items()}


def test_experts_count_the_tokens_routed_to_them_and_no_padding(tmp_path):
    model = load_model(tiny_model("Mixtral"), tiny_tokenizer(), device="cpu")
    task = RowsTask()
    statistics = calibrate(model, task, OPTIONS, folder=tmp_path)
    routed = [group.key for group in statistics.groups if group.routed]
    assert len(routed) == 2 * 2 * 4
    n_solve = statistics.n_tokens["solve"]
    split = next(i for i in range(40) if sum(map(len, task.rows[:i])) == n_solve)
    for key, x in alone(model, routed, task.rows[:split]).items():
        got = statistics[key].solve
        assert got.n_tokens == len(x)
        assert torch.allclose(got.gram, x.T @ x, rtol=1e-3, atol=1e-4)
        assert torch.allclose(got.abs_sum, x.abs().sum(0), rtol=1e-3, atol=1e-4)
    for block in ("model.layers.0", "model.layers.1"):  # every token goes to two of the experts
        keys = [key for key in routed if key.startswith(block) and "down_proj" in key]
        assert sum(statistics[key].solve.n_tokens for key in keys) == 2 * n_solve


def test_a_layer_that_also_reads_positions_counts_them_once_per_pass(tmp_path):
    model = load_model(tiny_model("DebertaV2"), tiny_tokenizer(), device="cpu")
    statistics = calibrate(model, RowsTask(), OPTIONS, folder=tmp_path)
    query, value = (statistics[group.key].solve.n_tokens for group in statistics.groups[:2])
    assert value == statistics.n_tokens["solve"]
    assert query > value
    assert (query - value) % 16 == 0, "two times eight buckets in every batch"


def text_batch(width, decoder_width, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(2, width, dtype=torch.long)
    mask[1, 3:] = 0
    decoder_mask = torch.ones(2, decoder_width, dtype=torch.long)
    decoder_mask[0, 2:] = 0
    return {
        "input_ids": torch.randint(4, 260, (2, width), generator=generator),
        "attention_mask": mask,
        "decoder_input_ids": torch.randint(4, 260, (2, decoder_width), generator=generator),
        "decoder_attention_mask": decoder_mask,
    }


def test_inputs_of_ones_own_for_encoder_and_decoder(tmp_path):
    model = load_model(tiny_model("T5"), tiny_tokenizer(), device="cpu")
    data = CalibrationInputs([text_batch(6, 5, seed) for seed in range(5)])
    statistics = calibrate(model, data, folder=tmp_path)
    assert statistics.n_tokens == {"solve": 4 * 9, "judge": 9}
    counts = {group.key: statistics[group.key].judge.n_tokens for group in statistics.groups}
    assert counts["encoder.block.0.layer.0.SelfAttention.q"] == 9
    assert counts["decoder.block.0.layer.0.SelfAttention.q"] == 7
    assert counts["decoder.block.0.layer.1.EncDecAttention.k"] == 9  # reads the encoder's output
    equal = CalibrationInputs([text_batch(6, 6, seed) for seed in range(5)])
    statistics = calibrate(model, equal, folder=tmp_path)
    counts = {group.key: statistics[group.key].judge.n_tokens for group in statistics.groups}
    assert counts["encoder.block.1.layer.1.DenseReluDense.wi_0"] == 9
    assert counts["decoder.block.1.layer.2.DenseReluDense.wi_0"] == 8


def test_images(tmp_path):
    model = load_model(tiny_model("ViT"), device="cpu")
    pixels = torch.randn(5, 4, 3, 24, 24)
    data = CalibrationInputs([{"pixel_values": batch} for batch in pixels])
    statistics = calibrate(model, data, folder=tmp_path)
    assert statistics.n_tokens == {"solve": 4 * 4 * 10, "judge": 4 * 10}  # 9 patches and a class
    with pytest.raises(CalibrationError, match="tensors, not rows of tokens"):
        Calibrator(data, folder=tmp_path).windows(model)
    other = CalibrationInputs([{"pixel_values": batch + 1} for batch in pixels])
    assert other.fingerprint != data.fingerprint
    assert calibrate(model, other, folder=tmp_path).key != statistics.key


@pytest.mark.parametrize("batches", [[], [{"pixel_values": torch.ones(1)}], [{"x": 1}, {"x": 2}]])
def test_inputs_that_are_not_accepted(batches):
    with pytest.raises(ConfigError, match="at least two, each a dict of tensors"):
        CalibrationInputs(batches)


@pytest.mark.parametrize("n_windows", [1, 2, 3, 4, 5, 9])
def test_few_long_windows_leave_some_for_judging(model, n_windows, tmp_path):
    task = RowsTask()
    task.rows = [[5 + i] * 64 for i in range(n_windows)]
    options = CalibrationOptions(solve_tokens=4096, judge_tokens=1024, sequence_length=64)
    if n_windows == 1:
        task.rows = [list(range(5, 69))]
    found = calibrate(model, task, options, folder=tmp_path).n_tokens
    assert found["judge"] > 0
    assert found["solve"] >= found["judge"]
    assert found["solve"] + found["judge"] == 64 * n_windows
