from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibrate import CalibrationOptions, calibrate
from workbench.errors import CalibrationError, CancelledError
from workbench.models import load_model
from workbench.progress import Monitor


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
