import numpy as np
import pytest
import torch

from tests.tasks.test_generation import extraction
from tests.tiny import tiny_model, tiny_tokenizer
from tests.toy import texts
from workbench.calibration.calibrate import CalibrationOptions, Calibrator
from workbench.calibration.gradients import GradientOptions, _InputSums, _loss, collect_gradients
from workbench.errors import CancelledError
from workbench.models.load import load_model
from workbench.progress import Monitor
from workbench.tasks import LanguageModeling, TextClassification
from workbench.tensors.statistics import OutputGram

OPTIONS = CalibrationOptions(solve_tokens=256, judge_tokens=512, sequence_length=24)


def decoder():
    model = load_model(tiny_model("LlamaForCausalLM"), tiny_tokenizer(), device="cpu")
    task = LanguageModeling(texts(), sequence_length=32, name="toy")
    return task.bind(model), task


def experts():
    model = load_model(tiny_model("Mixtral"), tiny_tokenizer(), device="cpu")
    task = LanguageModeling(texts(), sequence_length=32, name="toy")
    return task.bind(model), task


def encoder():
    model = load_model(tiny_model("BertModel"), tiny_tokenizer(), device="cpu")
    rows = [{"text": text[: 20 + 5 * i], "label": "ab"[i % 2]} for i, text in enumerate(texts(60))]
    task = TextClassification(rows, name="toy")
    return task.bind(model), task


def encoder_decoder():
    model = load_model(tiny_model("T5").eval(), tiny_tokenizer(), device="cpu")
    return model, extraction(shots=0)


def collected(made, folder, **options):
    model, task = made
    calibrator = Calibrator(task, OPTIONS, folder=folder)
    statistics = calibrator.statistics(model)
    gradients = collect_gradients(
        model, calibrator, statistics, GradientOptions(**options), monitor=Monitor(None)
    )
    return model, task, calibrator, statistics, gradients


def measured_kl(model, task, calibrator, name, delta):
    """The mean KL divergence that a change of one layer causes, by running both models."""
    total = count = 0
    changed = model.copy()
    with torch.no_grad():
        site = changed.site(name)
        site.put(site.matrix + delta)
        for batch in calibrator.judge_batches(model):
            dense, other = (task.predictions(m, batch) for m in (model, changed))
            total += float((dense.exp() * (dense - other)).sum())
            count += len(dense)
    return total / count


@pytest.mark.parametrize("make", [decoder, encoder, experts, encoder_decoder])
def test_a_small_change_diverges_as_predicted(make, tmp_path):
    """Second order is exact for small changes but for the factoring: right within a factor of 2."""
    model, task, calibrator, statistics, gradients = collected(make(), tmp_path, predictions=4000)
    ratios = []
    for group in statistics.groups:
        gram = statistics[group.key].judge.mean_gram
        for i, name in enumerate(group.names):
            weight = model.site(name).matrix
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(i))
            delta = 0.2 * weight.std() * noise
            predicted = gradients.divergence(group.key, name, delta, gram)
            measured = measured_kl(model, task, calibrator, name, delta)
            if measured > 1e-6:  # below that float32 is mostly noise
                ratios.append(predicted / measured)
    assert len(ratios) >= 4
    assert 0.6 < np.median(ratios) < 1.6
    assert all(0.2 < ratio < 5 for ratio in ratios)


def test_layers_that_read_no_tokens_have_gradients_too(tmp_path):
    """DeBERTa's projections of relative positions do not come from the embeddings."""
    model = load_model(tiny_model("DebertaV2-own"), tiny_tokenizer(), device="cpu")
    rows = [{"text": text[: 20 + 5 * i], "label": "ab"[i % 2]} for i, text in enumerate(texts(60))]
    task = TextClassification(rows, name="toy")
    made = task.bind(model), task
    model, _, _, statistics, gradients = collected(made, tmp_path, predictions=50)
    group = next(g for g in statistics.groups if g.key.endswith("pos_key_proj"))
    gram = statistics[group.key].judge.mean_gram
    for name in group.names:
        delta = model.site(name).matrix
        assert gradients.divergence(group.key, name, delta, gram) > 0


def test_padding_and_batches_change_nothing(tmp_path):
    """The sums of padded batches are those of every example by itself."""
    made = encoder()
    first = collected(made, tmp_path / "a", predictions=1)
    model, task = made
    alone = CalibrationOptions(
        solve_tokens=256, judge_tokens=512, sequence_length=24, batch_tokens=1
    )
    calibrator = Calibrator(task, alone, folder=tmp_path / "b")
    statistics = calibrator.statistics(model)
    single = collect_gradients(model, calibrator, statistics, GradientOptions(predictions=1))
    key = statistics.groups[0].key
    for a, b in zip(first[4]._input_grams(key), single._input_grams(key), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_flattened_inputs_know_their_padding_and_their_examples(tmp_path):
    """OPT gives its feed-forward layers (batch * tokens, features)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    sums = []
    for name, given in (("a", x), ("b", x.reshape(12, 5))):
        found = _InputSums(tmp_path / name, 5)
        found.mask = mask
        found.add(given)
        sums.append(found)
    assert sums[0].describe() | {"file": ""} == sums[1].describe() | {"file": ""}
    for part in ("around", "means"):
        torch.testing.assert_close(sums[0]._parts[part], sums[1]._parts[part])


def test_an_output_gram_in_blocks_leaves_out_what_lies_between():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 6, generator=generator)
    x = torch.randn(40, 5, generator=generator)
    delta, gram = torch.randn(6, 5, generator=generator), x.T @ x / 40
    full = rows.T @ rows
    expected = float(torch.trace(full @ delta @ gram @ delta.T)) / (2 * 7)
    assert OutputGram(full[None], 7, 6).divergence(delta, gram) == pytest.approx(expected, rel=1e-4)

    blocks = torch.zeros(2, 4, 4)
    blocks[0], blocks[1, :2, :2] = full[:4, :4], full[4:, 4:]
    parts = [(slice(0, 4), blocks[0]), (slice(4, 6), full[4:, 4:])]
    expected = sum(float(torch.trace(g @ delta[s] @ gram @ delta[s].T)) for s, g in parts) / 14
    assert OutputGram(blocks, 7, 6).divergence(delta, gram) == pytest.approx(expected, rel=1e-4)


def test_gradients_are_collected_once_and_cancel_leaves_nothing(tmp_path):
    made = decoder()
    model, task = made
    calibrator = Calibrator(task, OPTIONS, folder=tmp_path)
    statistics = calibrator.statistics(model)
    with pytest.raises(CancelledError):
        collect_gradients(model, calibrator, statistics, monitor=Monitor(None, lambda: True))
    assert not list(tmp_path.glob("*gradients*"))
    reports = []
    first = collect_gradients(model, calibrator, statistics, monitor=Monitor(reports.append))
    assert {report.stage for report in reports} == {"gradients"}
    reports.clear()
    again = collect_gradients(model, calibrator, statistics, monitor=Monitor(reports.append))
    assert (again.key, reports) == (first.key, [])
    assert all(p.grad is None and not p.requires_grad for p in model.hf_model.parameters())


def test_with_few_classes_the_fisher_is_exact_however_sure_the_model_is():
    logits = torch.tensor([[9.0, 0.0, -2.0]], requires_grad=True)
    fisher = torch.zeros(3, 3)
    for label in range(3):
        logits.grad = None
        _loss(logits.log_softmax(-1), torch.Generator(), label).backward()
        fisher += logits.grad.T @ logits.grad
    p = logits.detach().softmax(-1)[0]
    torch.testing.assert_close(fisher, torch.diag(p) - torch.outer(p, p))
