"""Language modelling: windows, bytes, parts, fingerprints, and known answers."""

from __future__ import annotations

import math
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import CalibrationOptions
from workbench.calibration.calibration_data import take_examples
from workbench.errors import (
    CalibrationError,
    ConfigError,
    DataError,
    UnsupportedArchitectureError,
)
from workbench.models.load import LoadedModel, load_model
from workbench.tasks import LanguageModeling, load_task, task_from_dict
from workbench.tasks import metric as metric_module
from workbench.tasks.metric import digest_of, use_metric
from workbench.tasks.outcomes import Outcomes
from workbench.tasks.splits import PARTS


def texts(n: int = 30, words: int = 60) -> list[str]:
    rng = np.random.default_rng(0)
    return [
        " ".join(rng.choice(["fox", "höhe", "日本", "dog", "a"], words)) + f" {i}."
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(tiny_model(), tiny_tokenizer())


def task(**options: object) -> LanguageModeling:
    options = {"sequence_length": 32, "max_evaluation_tokens": None} | options
    return LanguageModeling(texts(), **options)  # type: ignore[arg-type]


def perplexity_of_words(outcomes: Outcomes) -> float:
    return float(np.exp(outcomes["loss"].sum() / outcomes["n_predictions"].sum()))


perplexity_of_words.higher_is_better = False  # type: ignore[attr-defined]


def test_all_bytes_of_the_evaluation_part_are_covered_once(model: LoadedModel) -> None:
    data = task()
    expected = sum(len(d.text.encode()) for d in data.documents["evaluation"])
    examples = data.examples(model)
    assert sum(e.n_bytes for e in examples) == expected
    assert sum(len(e.tokens) - 1 for e in examples) == expected  # a token per byte, all predicted
    assert all(e.tokens[0] == 1 and len(e.tokens) <= 32 for e in examples)
    assert [e.index for e in examples] == list(range(len(examples)))


def test_without_a_start_token_the_first_token_of_a_window_is_not_predicted() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    bare = load_model(tiny_model(), tokenizer)
    ascii_texts = [text.encode("ascii", "ignore").decode() for text in texts()]
    examples = LanguageModeling(ascii_texts, sequence_length=32).examples(bare)
    assert all(e.n_bytes == len(e.tokens) - 1 for e in examples)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(model: LoadedModel) -> None:
    uniform = model.copy()
    with torch.no_grad():
        uniform.hf_model.get_output_embeddings().weight.zero_()
    data = task()
    outcomes = data.evaluate(uniform)
    measured = {m.metric: m for m in data.measure(outcomes)}
    assert measured["perplexity"].value == pytest.approx(260, rel=1e-5)
    assert measured["perplexity"].stderr == pytest.approx(0, abs=1e-3)
    assert measured["bits_per_byte"].value == pytest.approx(math.log2(260), rel=1e-5)
    assert measured["bits_per_byte"].unit == "bits/byte"
    assert measured["accuracy"].value == 0
    assert "kl" not in measured
    assert np.isnan(outcomes["kl"].astype(float)).all()
    assert measured["accuracy"].n == len(outcomes)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "OPTForCausalLM", "GPT2LMHeadModel"])
def test_losses_are_those_of_single_windows(architecture: str) -> None:
    model = load_model(tiny_model(architecture), tiny_tokenizer())
    data = task()
    outcomes = data.evaluate(model)
    for example in data.examples(model)[::7]:
        ids = torch.tensor([example.tokens])
        with torch.no_grad():
            loss = model.hf_model(input_ids=ids, labels=ids).loss
        row = int(np.flatnonzero(outcomes["example"] == example.index)[0])
        predictions = len(example.tokens) - 1
        assert outcomes["n_predictions"][row] == predictions
        assert float(outcomes["loss"][row]) == pytest.approx(float(loss) * predictions, rel=1e-4)


def test_batching_does_not_change_the_answer(model: LoadedModel) -> None:
    data = task()
    many, one = data.evaluate(model), data.evaluate(model, batch_size=1)
    assert np.array_equal(many["example"], one["example"])
    assert np.allclose(many["loss"].astype(float), one["loss"].astype(float), rtol=1e-4)
    with pytest.raises(ConfigError, match="batch_size=0"):
        data.batches(model, batch_size=0)


def test_a_token_budget_takes_windows_evenly_over_documents(model: LoadedModel) -> None:
    data = task(max_evaluation_tokens=700)
    examples = data.examples(model)
    assert 700 <= sum(len(e.tokens) for e in examples) < 700 + 32
    counts = np.bincount([e.document for e in examples])
    assert len(data.documents["evaluation"]) == (counts > 0).sum()
    assert set(counts[counts > 0]) <= {counts.max(), counts.max() - 1}
    again = task(max_evaluation_tokens=700).examples(model)
    assert [e.tokens for e in again] == [e.tokens for e in examples]
    other = task(max_evaluation_tokens=700, seed=1).examples(model)
    assert [e.tokens for e in other] != [e.tokens for e in examples]
    assert len(data.examples(model, limit=5)) == 5


def test_windows_are_capped_at_what_the_model_takes(model: LoadedModel) -> None:
    assert max(len(e.tokens) for e in task(sequence_length=500).examples(model)) == 64


def test_calibration_windows_are_full_packed_and_shuffled_by_seed(model: LoadedModel) -> None:
    data = task()
    windows = data.calibration_windows(model, sequence_length=48, seed=0)
    assert {len(w) for w in windows} == {48}
    size = sum(len(d.text.encode()) + 1 for d in data.documents["calibration"])
    assert len(windows) == size // 48
    assert windows == data.calibration_windows(model, sequence_length=48, seed=0)
    assert windows != data.calibration_windows(model, sequence_length=48, seed=1)
    (whole,) = data.calibration_windows(model, sequence_length=10**6, seed=0)
    assert len(whole) > 48 * len(windows) - 48  # shorter than a window, but all there is


def test_an_encoder_cannot_be_bound() -> None:
    for architecture in ("BertModel", "BertForMaskedLM"):
        encoder = load_model(tiny_model(architecture), tiny_tokenizer())
        with pytest.raises(UnsupportedArchitectureError, match="TextClassification"):
            task().bind(encoder)


def test_parts_given_and_parts_split(tmp_path: Path) -> None:
    files = []
    for i, text in enumerate(texts(12)):
        files.append(tmp_path / f"{i}.txt")
        files[-1].write_text(text)
    split = LanguageModeling([str(f) for f in files])
    assert {len(split.documents[part]) for part in PARTS} <= set(range(1, 8))
    assert sum(len(split.documents[part]) for part in PARTS) == 12
    assert split.name == "0 and 11 more"
    given = LanguageModeling(calibration=texts(20)[:12], evaluation=texts(40)[20:])
    assert [d.text for d in given.documents["evaluation"]] == texts(40)[20:]
    assert len(given.documents["calibration"]) == 8
    assert len(given.documents["validation"]) == 4
    rest = LanguageModeling(texts(24)[:12], evaluation=texts(24)[12:])
    assert len(rest.documents["evaluation"]) == 12


def test_one_file_is_cut_into_documents(tmp_path: Path) -> None:
    file = tmp_path / "corpus.txt"
    file.write_text("\n\n".join(texts(100)))
    data = LanguageModeling(str(file))
    assert data.name == "corpus"
    assert all(len(data.documents[part]) >= 2 for part in PARTS)
    indices = [d.index for part in PARTS for d in data.documents[part]]
    assert indices == list(range(len(indices)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "no such corpus.txt"}, "There is no file"),
        ({}, "No text is given for the parts calibration, validation, evaluation"),
        ({"evaluation": ["some text"]}, "calibration"),
        ({"source": ["a few words"]}, "too little to split"),
    ],
)
def test_unusable_data(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LanguageModeling(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", [{"sequence_length": 1}, {"max_evaluation_tokens": 0}])
def test_unusable_options(option: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(option))}="):
        task(**option)


def test_overlap_and_few_documents_are_warned_about_once() -> None:
    with pytest.warns(UserWarning, match="part") as caught:
        data = LanguageModeling(
            calibration=texts(20), validation=texts(25)[20:], evaluation=texts(3)
        )
    assert all(w.filename == __file__ for w in caught)
    assert len(caught) == 1
    assert len(data.warnings) == 2
    assert "also occur in calibration" in data.warnings[0]
    assert "only" in data.warnings[1]
    assert all(part in str(caught[0].message) for part in ("also occur", "The evaluation part"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task().warnings == ()


def test_a_warning_points_at_the_users_line(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("The same line of text again.\n\n" * 400)
    with pytest.warns(UserWarning, match="also occur") as caught:
        load_task(tmp_path / "corpus.txt")
    assert [w.filename for w in caught] == [__file__]


def test_the_fingerprint_depends_on_data_and_options_alone() -> None:
    base = task()
    assert base.fingerprint == task(name="other").fingerprint
    assert len(base.fingerprint) == 16
    others = [
        task(seed=1),
        task(sequence_length=16),
        task(max_evaluation_tokens=500),
        LanguageModeling(texts(31), sequence_length=32, max_evaluation_tokens=None),
    ]
    assert len({base.fingerprint, *(t.fingerprint for t in others)}) == 5


def test_a_saved_task_comes_back_without_the_users_files(
    tmp_path: Path, model: LoadedModel
) -> None:
    data = task(metric=perplexity_of_words)
    saved = data.save(tmp_path)
    back = task_from_dict(saved, tmp_path)
    assert isinstance(back, LanguageModeling)
    assert (back.fingerprint, back.metrics, back.name) == (
        data.fingerprint,
        data.metrics,
        data.name,
    )
    assert [e.tokens for e in back.examples(model)] == [e.tokens for e in data.examples(model)]
    (tmp_path / saved["data"]).unlink()
    with pytest.raises(DataError, match="give the task again"):
        task_from_dict(saved, tmp_path)
    with pytest.raises(DataError, match="of kind 'riddles'"):
        task_from_dict(saved | {"kind": "riddles"}, tmp_path)
    task().save(tmp_path)
    with pytest.raises(DataError, match="not the one that was saved"):
        task_from_dict(task().save(tmp_path) | {"fingerprint": "0" * 16}, tmp_path)


def test_an_own_metric_is_primary_and_has_an_error(model: LoadedModel) -> None:
    data = task(metric=perplexity_of_words)
    assert data.primary.name == "perplexity_of_words"
    assert not data.primary.higher_is_better
    measured = {m.metric: m for m in data.measure(data.evaluate(model))}
    own, built_in = measured["perplexity_of_words"], measured["perplexity"]
    assert own.value == pytest.approx(built_in.value)
    assert own.stderr == pytest.approx(built_in.stderr, rel=0.1)


def test_an_own_metric_is_named_and_never_found_by_what_a_study_says(
    tmp_path: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = task(metric=lambda outcomes: 1.0, higher_is_better=True)
    saved = data.save(tmp_path)
    assert set(saved) & {"metric_address", "metric_digest"} == {"metric_digest"}
    monkeypatch.setattr(metric_module, "_KNOWN", {})  # as in a process of its own
    for address in ({}, {"metric_address": "os:getcwd"}, {"metric_address": "antigravity:geohash"}):
        back = task_from_dict(saved | address, tmp_path)
        assert back.primary.name == "metric"
        with pytest.raises(DataError, match=r"Study.open\(path, metric=metric\)"):
            back.estimate("metric", data.evaluate(model))
    assert "antigravity" not in sys.modules


def test_a_metric_that_is_passed_for_a_study_is_used_and_a_changed_one_is_said(
    tmp_path: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = task(metric=perplexity_of_words)
    saved = data.save(tmp_path)
    monkeypatch.setattr(metric_module, "_KNOWN", {})
    monkeypatch.delenv(metric_module.GIVEN)
    use_metric(saved, perplexity_of_words)
    outcomes = data.evaluate(model)
    found = task_from_dict(saved, tmp_path).estimate("perplexity_of_words", outcomes)
    assert found.value == data.estimate("perplexity_of_words", outcomes).value
    old = {k: v for k, v in saved.items() if k != "metric_digest"} | {"metric_address": "x:y"}
    assert use_metric(old, perplexity_of_words) == saved

    def other(outcomes: object) -> float:
        return 3.0

    with pytest.raises(ConfigError, match="'other' is another one"):
        use_metric(saved, other)
    other.__name__ = "perplexity_of_words"
    with pytest.warns(UserWarning, match="written differently"):
        use_metric(saved, other)
    with pytest.raises(ConfigError, match="no metric of your own"):
        use_metric(task().save(tmp_path), other)


def test_the_digest_of_a_metric_is_of_what_it_does() -> None:
    def one(x: float) -> float:
        return x + 1  # a comment

    first = digest_of(one)

    def one(x: float) -> float:  # type: ignore[no-redef]
        return (x
                + 1)  # fmt: skip

    assert digest_of(one) == first != ""

    def one(x: float) -> float:  # type: ignore[no-redef]
        return x + 2

    assert digest_of(one) != first
    assert digest_of(partial(one, x=1)) != digest_of(partial(one, x=2))


def test_an_unusable_metric_is_refused(model: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="give a function"):
        task(metric="accuracy")

    def accuracy(outcomes: Outcomes) -> float:
        return 1.0

    with pytest.raises(ConfigError, match="rename it"):
        task(metric=accuracy)
    data = task(metric=lambda outcomes: outcomes["nothing"], higher_is_better=False)
    with pytest.raises(ConfigError, match="failed: KeyError"):
        data.measure(data.evaluate(model))
    with pytest.raises(ConfigError, match="no metric 'f1'; it has perplexity"):
        task().metric("f1")


def test_the_direction_of_an_own_metric_is_never_guessed() -> None:
    def cost(outcomes: Outcomes) -> float:
        return float(outcomes["loss"].sum())

    with pytest.raises(ConfigError, match=r"'cost'.*higher_is_better=True .*=False"):
        task(metric=cost)
    with pytest.raises(ConfigError, match="higher_is_better='lower'"):
        task(metric=cost, higher_is_better="lower")
    assert not task(metric=cost, higher_is_better=False).primary.higher_is_better
    assert not task(metric=partial(perplexity_of_words)).primary.higher_is_better
    assert task(metric=perplexity_of_words, higher_is_better=True).primary.higher_is_better


def test_two_models_are_compared_on_the_same_windows(model: LoadedModel) -> None:
    data = task()
    other = load_model(tiny_model(seed=1), tiny_tokenizer())
    a, b = data.evaluate(model), data.evaluate(other)
    difference = data.difference("perplexity", a, b)
    assert difference.value == pytest.approx(
        data.estimate("perplexity", a).value - data.estimate("perplexity", b).value
    )
    assert difference.low < difference.value < difference.high
    relative = data.difference("perplexity", a, b, relative=True)
    assert relative.value == pytest.approx(
        data.estimate("perplexity", a).value / data.estimate("perplexity", b).value
    )
    with pytest.raises(ConfigError, match="not the same"):
        data.difference("accuracy", a, data.evaluate(other, "validation"))
    with pytest.raises(ConfigError, match="part='test'"):
        data.evaluate(model, "test")


def test_tasks_are_loaded_by_name_or_from_text_files(tmp_path: Path) -> None:
    file = tmp_path / "corpus.txt"
    file.write_text("\n\n".join(texts(100)))
    assert load_task(file).name == "corpus"
    data = task()
    assert load_task(data) is data
    with pytest.raises(DataError, match="TextClassification"):
        load_task("tickets.csv")
    with pytest.raises(DataError, match='give "demo"'):
        load_task("dmeo")


def test_what_is_no_task(model: LoadedModel) -> None:
    import pandas as pd

    for given, message in (
        (None, 'None is not a task; give "demo"'),
        (7, "A int is not a task"),
        (pd.DataFrame({"text": ["a"]}), "A DataFrame is a table: say which columns"),
        (model, r"a model, not a task.*Study\(model, task\)"),
    ):
        with pytest.raises(DataError, match=message):
            load_task(given)


def test_the_demo_task_needs_nothing_and_its_parts_do_not_overlap(model: LoadedModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        demo = load_task("demo")
    assert isinstance(demo, LanguageModeling)
    assert demo.name == "demo"
    assert [len(demo.documents[part]) > 5 for part in PARTS] == [True] * 3
    assert "python" in demo.options
    tokens = sum(len(e.tokens) for e in demo.examples(model))
    assert 28_000 <= tokens < 28_300
    documents = {e.document for e in demo.examples(model)}
    assert len(documents) == len(demo.documents["evaluation"])


def test_a_text_shorter_than_a_window_calibrates(model: LoadedModel) -> None:
    """243 tokens are enough; with fewer than 64 the message says how many there are."""
    for characters, enough in ((242, True), (40, False)):
        data = LanguageModeling(
            calibration="a" * characters, validation=texts(5), evaluation=texts(9)[5:]
        )
        options = CalibrationOptions(solve_tokens=200, judge_tokens=40, sequence_length=512)
        if enough:
            halves = take_examples(model, data, options)
            assert sum(len(e.tokens) for half in halves.values() for e in half) == characters + 1
            assert all(halves.values())
        else:
            with pytest.raises(CalibrationError, match="has 41 tokens; at least 64 are needed"):
                take_examples(model, data, options)
