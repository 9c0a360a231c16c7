"""Measuring whole models, and what a study does with it."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import transformers

from tests.runtime.test_pack_model import compress, llama
from tests.tiny import tiny_model, tiny_tokenizer
from tests.toy import toy_study, toy_task
from workbench.errors import CancelledError, ConfigError, StudyError
from workbench.models.load import load_model
from workbench.progress import Monitor
from workbench.recipes import RTN
from workbench.records import Measurement
from workbench.runtime.measure import classification, measure_model
from workbench.runtime.measure.classification import time_queries
from workbench.runtime.measure.memory import Memory
from workbench.runtime.packed import pack_model
from workbench.study import Study
from workbench.tasks import TextClassification


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not look whether the machine is busy, which takes half a second."""
    monkeypatch.setattr("workbench.runtime.measure.model.warn_if_busy", lambda threads: None)


@pytest.fixture(autouse=True)
def fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs how depends on the processor: have one with instructions for bfloat16."""
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)


def by_name(found: tuple[Measurement, ...]) -> dict[str, Measurement]:
    names = {m.metric: m for m in found}
    assert len(names) == len(found)
    return names


@pytest.mark.parametrize("keeps", [True, False])
def test_a_recurrent_decoder(keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """RWKV keeps a state, not keys and values; a model that keeps nothing reads all again."""
    config = transformers.RwkvConfig(
        vocab_size=260, hidden_size=16, num_hidden_layers=2, context_length=64
    )
    model = load_model(transformers.RwkvForCausalLM(config), tiny_tokenizer())
    read: list[int] = []
    forward = type(model.hf_model).forward

    @functools.wraps(forward)
    def counted(self, input_ids, *args, **kwargs):  # type: ignore[no-untyped-def]
        read.append(input_ids.shape[1])
        found = forward(self, input_ids, *args, **kwargs)
        if not keeps:
            found.state = None
        return found

    monkeypatch.setattr(type(model.hf_model), "forward", counted)
    found = by_name(measure_model(model, toy_task(), repeats=3, memory=False))
    assert found["latency_ms"].value > 0
    assert (set(read[1:3]) == {1}) == keeps


def test_a_decoder() -> None:
    model = compress(llama())
    stages: list[int] = []
    monitor = Monitor(lambda p: stages.append(p.done) if p.detail == "tokens" else None)
    found = by_name(measure_model(model, toy_task(), repeats=3, memory=False, monitor=monitor))
    assert {"stored_bytes", "first_token_ms", "latency_ms", "decode_tokens_per_s"} <= set(found)
    assert "resident_bytes" not in found
    assert found["stored_bytes"].value == model.size_bytes
    latency = found["latency_ms"]
    assert (latency.n, latency.part, latency.unit, latency.stderr) == (3, "", "ms", None)
    assert latency.spread is not None
    assert latency.how.startswith("packed int4")
    assert ", short path" in latency.how
    assert "thread" in latency.conditions
    # of an odd number of repeats the median of the inverses is the inverse of the median
    assert found["decode_tokens_per_s"].value == pytest.approx(1000 / latency.value)
    assert stages == [1, 2, 3]


def classifier() -> tuple[TextClassification, list[dict[str, str]]]:
    words = {"red": "apple cherry rose", "blue": "sky sea whale", "green": "leaf grass frog"}
    rows = [
        {"text": f"{word} {i} " * (1 + i % 4), "label": label}
        for i in range(40)
        for label, some in words.items()
        for word in some.split()
    ]
    return TextClassification(rows), rows


@pytest.mark.filterwarnings("ignore")
def test_a_classifier_with_its_head() -> None:
    task, _ = classifier()
    model = task.bind(load_model(tiny_model("BertModel"), tiny_tokenizer()))
    found = by_name(measure_model(model, task, repeats=3, memory=False))
    assert {"stored_bytes", "latency_ms", "latency_batch32_ms"} <= set(found)
    assert "decode_tokens_per_s" not in found
    assert found["latency_ms"].n == 9
    assert found["latency_batch32_ms"].value > found["latency_ms"].value
    single = found["query_ms"]
    assert single.n == len(single.samples) == len(task.examples(model))
    assert sorted(single.samples)[0] <= single.value <= sorted(single.samples)[-1]
    assert all(m.samples == () for m in found.values() if m is not single)


@pytest.mark.filterwarnings("ignore")
def test_single_texts_are_timed_in_the_parts_order_until_it_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, _ = classifier()
    model = task.bind(load_model(tiny_model("BertModel"), tiny_tokenizer()))
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(classification, "QUERY_SECONDS", 0.0)
    monkeypatch.setattr(classification, "LEAST_QUERIES", 3)
    packed = pack_model(model)
    seconds = time_queries(packed, model, task, each=lambda *done: told.append(done))
    assert len(seconds) == 3
    assert told == [(n, min(100, len(task.examples(model)))) for n in (1, 2, 3)]


def test_memory_is_measured_by_default() -> None:
    found = by_name(measure_model(llama(), toy_task(), repeats=3))
    assert found["resident_bytes"].value > 0
    assert found["resident_bytes"].how == found["peak_bytes"].how
    assert found["peak_bytes"].value >= found["resident_bytes"].value
    assert found["peak_bytes"].comparable_conditions.endswith("128 tokens")


def test_times_are_kept_where_memory_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.runtime.measure.memory._CHILD", "raise SystemError('killed')")
    with pytest.warns(UserWarning, match=r"memory is not recorded.*killed"):
        found = by_name(measure_model(llama(), toy_task(), repeats=3))
    assert {"latency_ms", "first_token_ms"} <= set(found)
    assert "resident_bytes" not in found


@pytest.mark.parametrize("has", [True, False])
def test_a_dense_model_runs_in_what_is_fast_here(
    has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    found = by_name(measure_model(llama(), toy_task(), repeats=3, memory=False))
    how = "dense bfloat16, short path" if has else "dense float32, transformers"
    assert found["latency_ms"].how == how


def test_it_can_be_cancelled_and_refuses_few_repeats() -> None:
    with pytest.raises(CancelledError):
        measure_model(llama(), toy_task(), monitor=Monitor(is_cancelled=lambda: True))
    with pytest.raises(ConfigError, match="whole number from 3"):
        measure_model(llama(), toy_task(), repeats=2)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(
        "workbench.runtime.measure.model.measure_memory",
        lambda packed, n_tokens: Memory(4096, 8192),
    )
    study = toy_study(tmp_path / "study")
    study.run(RTN(4, group_size=8))
    return study


class TestStudy:
    def test_rows_are_recorded_and_shown(self, study: Study) -> None:
        run = study.runs[-1]
        assert "latency_ms" not in study.table()
        before = run.measurements
        found = run.measure(repeats=3)
        assert run.measurements == (*before, *found)
        assert Study.open(study.path).runs[-1].measurements == run.measurements
        table = study.table()
        row = table.loc[run.id]
        assert row["latency_ms"] == by_name(found)["latency_ms"].value
        assert row["latency_ms_spread"] == by_name(found)["latency_ms"].spread
        assert row["resident_bytes"] == 4096
        assert "dense bfloat16" in row["runs_as"]  # groups of 8 have no kernel
        assert row["peak_bytes"] == 8192
        assert row["measured_on"] == by_name(found)["latency_ms"].conditions
        assert table.loc[study.runs[0].id, "runs_as"] == ""
        assert "latency_ms_stderr" not in table

    def test_the_newest_counts(self, study: Study) -> None:
        run = study.runs[-1]
        run.measure(repeats=3)
        newest = by_name(run.measure(repeats=4))["latency_ms"]
        assert run.record.measurement("latency_ms") == newest
        assert newest.n == 4

    def test_a_limit_of_latency(self, study: Study) -> None:
        run = study.runs[-1]
        with pytest.raises(StudyError, match=r"study\.measure\(run\)"):
            study.choose(latency_ms=1e6)
        run.measure(repeats=3)
        assert study.choose(latency_ms=1e6).run == run
        assert study.choose(latency_ms=1e-6).run is None

    def test_conditions_are_never_mixed(self, study: Study) -> None:
        baseline, run = study.runs
        found = baseline.measure(repeats=3)
        elsewhere = [dataclasses.replace(m, conditions="elsewhere, 8 threads") for m in found]
        study._workspace.store.add_measurements(run.id, elsewhere)
        with pytest.raises(StudyError, match=r"elsewhere, 8 threads.*Measure all"):
            study.choose(latency_ms=1e6)
        assert study.choose(size_bytes=1e9).run == run

    def test_the_plot_against_latency_has_what_was_measured(self, study: Study) -> None:
        baseline, run = study.runs
        with pytest.raises(StudyError, match="No run has a measured latency"):
            study.plot(x="latency")
        with pytest.raises(ConfigError, match="'size', 'latency', 'memory'"):
            study.plot(x="speed")
        found = by_name(run.measure(repeats=3))
        view = study.plot(x="latency").view
        assert [(p.run_id, p.across) for p in view.points] == [(run.id, found["latency_ms"].value)]
        assert view.n_unmeasured == 1
        assert view.points[0].on_front
        baseline.measure(repeats=3)
        figure = study.plot(x="memory")
        assert [p.across for p in figure.view.points] == [0.004096, 0.004096]
        assert figure.layout.xaxis.title.text == "Memory held after a run (MB)"
        assert "against memory" in figure.layout.title.text
        assert "Memory held after a run" in figure._repr_mimebundle_()["image/svg+xml"]
        assert len(study.plot().view.points) == 2

    def test_a_new_host_name_does_not_matter(self, study: Study) -> None:
        baseline, run = study.runs
        found = baseline.measure(repeats=3)
        elsewhere = [
            dataclasses.replace(m, conditions=f"{m.comparable_conditions} | host other, torch 9")
            for m in found
        ]
        study._workspace.store.add_measurements(run.id, elsewhere)
        assert study.choose(latency_ms=1e6).run == run

    def test_it_is_seen_first_whether_the_study_can_be_written(
        self, study: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise StudyError("read-only")

        monkeypatch.setattr(study._workspace.store, "add_measurements", refuse)
        monkeypatch.setattr(
            "workbench.runtime.measure.measure_model", lambda *_, **__: pytest.fail("ran")
        )
        with pytest.raises(StudyError, match="read-only"):
            study.runs[-1].measure(repeats=3)

    def test_only_finished_runs(self, study: Study) -> None:
        with pytest.raises(StudyError, match="no run"):
            study.measure("0123456789ab")
