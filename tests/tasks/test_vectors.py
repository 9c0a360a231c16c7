"""Vectors are made as a model's folder says, and judged by what the field's formulas say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import CalibrationOptions
from workbench.errors import ConfigError, DataError, StudyError, UnsupportedArchitectureError
from workbench.models.load import LoadedModel, load_model
from workbench.models.sentence_encoding import SentenceEncoding, pool, sentence_encoding
from workbench.recipes import GPTQ, RTN, DepthPruning, Distillation, FineTuning
from workbench.runtime.measure.evaluate import Reference
from workbench.study import Study
from workbench.tasks import Retrieval, SentenceSimilarity, load_task, task_from_dict
from workbench.tasks.base import batch_of
from workbench.tasks.vector_precision import stored_vectors, unit_length, vector_bytes
from workbench.training.losses import Paired, order_loss

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CALIBRATION = CalibrationOptions(solve_tokens=512, judge_tokens=256, sequence_length=32)


def pairs(n: int = 60) -> dict[str, list[Any]]:
    words = ("cold water", "warm tea", "a red car", "the blue bus")
    return {
        "text": [f"{words[i % 4]} {i}" for i in range(n)],
        "other": [f"{words[(i // 2) % 4]} {i % 7}" for i in range(n)],
        "score": [float((i * 7) % 11) / 2 for i in range(n)],
    }


def search(n: int = 40, grades: tuple[int, int] = (2, 1)) -> Retrieval:
    topics = ("cold water", "warm tea", "a red car", "the blue bus")
    return Retrieval(
        {f"q{i}": f"where is {topics[i % 4]} number {i}?" for i in range(n)},
        {f"d{i}": f"{topics[i % 4]} stands here, {i}" for i in range(n)},
        {f"q{i}": {f"d{i}": grades[0], f"d{(i + 4) % n}": grades[1]} for i in range(n)},
        name="search",
    )


def encoder(seed: int = 0) -> LoadedModel:
    return load_model(tiny_model("BertModel", seed), tiny_tokenizer(), device="cpu")


def sentence_folder(folder: Path, *, most: int = 24, **pooling: Any) -> Path:
    """Save a tiny encoder the way sentence-transformers does."""
    model = tiny_model("BertModel")
    with torch.no_grad():  # so that texts differ
        for weight in model.parameters():
            weight.mul_(8 if weight.ndim == 2 else 1)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": most}))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "Q: ", "document": "D: "}, "default_prompt_name": None})
    )
    return folder


def beir_folder(folder: Path) -> Path:
    """Write twenty documents and queries in the form of BEIR."""
    (folder / "qrels").mkdir(parents=True)
    lines = [{"_id": f"d{i}", "title": f"T{i}", "text": f"that {i}"} for i in range(20)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    lines = [{"_id": f"q{i}", "text": f"what {i}"} for i in range(20)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = "".join(f"q{i}\td{i}\t{i % 3}\n" for i in range(20))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    return folder


class TestPooling:
    hidden = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])

    @pytest.mark.parametrize(
        ("how", "first", "second"),
        [
            ("mean", [4.5, 5.5, 6.5], [13.5, 14.5, 15.5]),
            ("cls", [0.0, 1.0, 2.0], [12.0, 13.0, 14.0]),
            ("max", [9.0, 10.0, 11.0], [15.0, 16.0, 17.0]),
            ("lasttoken", [9.0, 10.0, 11.0], [15.0, 16.0, 17.0]),
        ],
    )
    def test_padding_never_counts(self, how: str, first: list[float], second: list[float]) -> None:
        found = pool(self.hidden, self.mask, how)
        assert found.tolist() == [first, second]
        alone = pool(self.hidden[:1], None, how)
        assert alone.tolist() == [first]

    def test_a_folder_says_how(self, tmp_path: Path) -> None:
        folder = sentence_folder(tmp_path / "m", pooling_mode_cls_token=True)
        model = load_model(folder, device="cpu")
        found = sentence_encoding("m", model.beside)
        assert (found.pooling, found.max_tokens) == ("cls", 24)
        assert [found.prompt(use) for use in ("query", "document", "")] == ["Q: ", "D: ", ""]
        task = search()
        bound = task.bind(model)
        length = 24
        text = task.part_texts("evaluation")[0].text
        ids = model.tokenizer("Q: " + text, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            hidden = model.hf_model(**{k: ids[k] for k in ("input_ids", "attention_mask")})
        wanted = torch.nn.functional.normalize(hidden.last_hidden_state[:, 0], dim=-1)
        found_vector = task.embed(bound, [text], use="query")
        assert np.allclose(found_vector, wanted.numpy(), atol=1e-6)

    def test_without_such_files_it_is_the_mean(self) -> None:
        assert sentence_encoding("m", {}) == SentenceEncoding()

    @pytest.mark.parametrize(
        ("pooling", "kind", "words"),
        [
            ({"pooling_mode_weightedmean_tokens": True}, "Pooling", "weightedmean"),
            ({}, "Dense", "a module 'Dense'"),
        ],
    )
    def test_another_way_is_refused_by_name(
        self, tmp_path: Path, pooling: dict[str, bool], kind: str, words: str
    ) -> None:
        folder = sentence_folder(tmp_path / "m", **pooling)
        text = (folder / "modules.json").read_text().replace("models.Normalize", f"models.{kind}")
        (folder / "modules.json").write_text(text)
        model = load_model(folder, device="cpu")
        with pytest.raises(UnsupportedArchitectureError, match=words):
            search().bind(model)

    def test_a_path_that_leaves_the_folder_is_not_read(self, tmp_path: Path) -> None:
        folder = sentence_folder(tmp_path / "m", pooling_mode_cls_token=True)
        (tmp_path / "config.json").write_text(json.dumps({"secret": 1}))
        text = (folder / "modules.json").read_text().replace('"1_Pooling"', '".."')
        (folder / "modules.json").write_text(text)
        assert not [n for n in load_model(folder, device="cpu").beside if ".." in n]


class TestPrecision:
    def test_bytes(self) -> None:
        assert [vector_bytes(384, p) for p in ("float32", "int8", "binary")] == [1536, 384, 48]

    def test_int8_is_within_half_a_step_and_binary_is_the_sign(self) -> None:
        vectors = unit_length(np.random.default_rng(0).normal(size=(50, 16)).astype("f"))
        step = (vectors.max(0) - vectors.min(0)) / 255
        assert (np.abs(stored_vectors(vectors, "int8") - vectors) <= 0.51 * step + 5e-3).all()
        binary = stored_vectors(vectors, "binary")
        assert np.array_equal(np.sign(binary), np.where(vectors > 0, 1, -1))
        assert np.allclose(np.linalg.norm(binary, axis=1), 1)


class TestSimilarity:
    def test_correlations_are_scipys(self) -> None:
        task = SentenceSimilarity(pairs())
        model = task.bind(encoder())
        rows = task.rows["evaluation"]
        one, other = (task.embed(model, [getattr(r, n) for r in rows]) for n in ("text", "other"))
        scores = [row.score for row in rows]
        cosines = (one * other).sum(1)
        outcomes = task.evaluate(model)
        found = {m.metric: m for m in task.measure(outcomes)}
        assert found["spearman"].value == pytest.approx(
            stats.spearmanr(scores, cosines)[0], abs=1e-6
        )
        assert found["pearson"].value == pytest.approx(stats.pearsonr(scores, cosines)[0], abs=1e-6)
        signs = np.sign(np.where(one > 0, 1, -1) * np.where(other > 0, 1, -1)).sum(1)
        wanted = stats.spearmanr(scores, signs)[0]
        assert found["spearman_binary"].value == pytest.approx(wanted, abs=1e-6)
        stderr = found["spearman"].stderr
        assert stderr is not None
        assert (
            0.5 < stderr * np.sqrt(len(rows) - 1) < 1.6
        )  # about 1 / sqrt(n - 1) at no correlation

    def test_a_paired_difference_of_a_model_with_itself_is_zero(self) -> None:
        task = SentenceSimilarity(pairs())
        outcomes = task.evaluate(task.bind(encoder()))
        found = task.difference("spearman", outcomes, outcomes)
        assert (found.value, found.low, found.high) == (0, 0, 0)

    @pytest.mark.parametrize(
        ("column", "value", "words"),
        [("score", "high", "no number"), ("score", "nan", "no number"), ("other", "", "nothing")],
    )
    def test_what_is_no_pair_is_refused_or_skipped(
        self, column: str, value: str, words: str
    ) -> None:
        table = pairs()
        table[column][3] = value
        with pytest.raises(DataError, match=words):
            SentenceSimilarity(table)
        task = SentenceSimilarity(table, on_bad_rows="skip")
        assert sum(map(len, task.rows.values())) == 59
        assert any("left out" in text for text in task.warnings)

    def test_equal_scores_cannot_be_ranked(self) -> None:
        with pytest.raises(DataError, match="nothing can"):
            SentenceSimilarity({**pairs(), "score": [1] * 60})

    def test_fewer_dimensions_are_the_first_ones(self) -> None:
        task = SentenceSimilarity(pairs(), dimensions=5)
        model = encoder()
        whole = SentenceSimilarity(pairs()).embed(model, ["warm tea"])
        assert np.allclose(task.embed(model, ["warm tea"]), unit_length(whole[:, :5]), atol=1e-6)


class TestRetrieval:
    def test_scores_are_those_of_the_definitions(self) -> None:
        metrics = pytest.importorskip("sklearn.metrics")
        task = search()
        model = task.bind(encoder())
        names = list(task.documents)
        queries = task.rows["evaluation"]
        index = task.embed(model, list(task.documents.values()), use="document")
        asked = task.embed(model, [q.text for q in queries], use="query")
        grades = np.array([[dict(q.relevant).get(n, 0.0) for n in names] for q in queries])
        similar = asked @ index.T
        ranked = np.take_along_axis(grades, np.argsort(-similar, axis=1), 1)[:, :10] > 0
        first = [1 / (1 + row.argmax()) if row.any() else 0.0 for row in ranked]
        found = {m.metric: m.value for m in task.measure(task.evaluate(model))}
        wanted = metrics.ndcg_score(grades, similar, k=10)
        assert found["ndcg_at_10"] == pytest.approx(wanted, abs=1e-6)
        assert found["mrr_at_10"] == pytest.approx(np.mean(first), abs=1e-6)
        assert found["recall_at_10"] == pytest.approx(ranked.sum() / (2 * len(queries)), abs=1e-6)
        binary = np.where(index > 0, 1, -1)
        wanted = metrics.ndcg_score(grades, (asked @ binary.T).astype("f") / 4, k=10)
        assert found["ndcg_at_10_binary"] == pytest.approx(wanted, abs=1e-5)

    def test_kl_is_zero_for_the_dense_model_and_for_vectors_that_turn_together(self) -> None:
        task = search()
        dense = task.bind(encoder())
        reference = Reference(dense, task)
        own = task.evaluate(dense, reference=reference)
        assert not np.asarray(own["kl"]).any()
        moved = task.evaluate(task.bind(encoder()), reference=reference)
        assert np.abs(np.asarray(moved["kl"])).max() < 1e-5
        other = dense.copy()
        with torch.no_grad():
            other.hf_model.encoder.layer[0].output.dense.weight.mul_(3)
        assert np.asarray(task.evaluate(other, reference=reference)["kl"]).min() > 0

    def test_a_limit_counts_queries_and_ranks_all_documents(self) -> None:
        task = search()
        model = task.bind(encoder())
        few, all_ = task.evaluate(model, limit=4), task.evaluate(model)
        place = {int(e): i for i, e in enumerate(np.asarray(all_["example"]))}
        assert len(few) == 4
        for row, example in enumerate(np.asarray(few["example"])):
            assert few["ndcg_at_10"][row] == all_["ndcg_at_10"][place[int(example)]]

    def test_what_does_not_fit_together_is_refused(self) -> None:
        queries = {f"q{i}": f"what {i}" for i in range(20)}
        documents = {f"d{i}": f"that {i}" for i in range(20)}
        good = {f"q{i}": [f"d{i}"] for i in range(20)}
        with pytest.raises(DataError, match=r"not among the\s+documents: 'd99'"):
            Retrieval(queries, documents, {**good, "q1": ["d99"]})
        with pytest.raises(DataError, match="None of the 1 queries"):
            Retrieval(queries, documents, {"x": ["d1"]})
        with pytest.raises(DataError, match="give a number"):
            Retrieval(queries, documents, {**good, "q1": {"d1": "much"}})
        with pytest.raises(DataError, match="have no text"):
            Retrieval({**queries, "q1": " "}, documents, good)
        task = Retrieval(queries, documents, {**good, "q1": [], "new": ["d1"]})
        assert sum(map(len, task.rows.values())) == 19
        assert "1 of 20 queries have no relevant document" in " ".join(task.warnings)
        assert "1 of 21 queries of relevance have no text" in " ".join(task.warnings)

    def test_most_documents_keeps_every_relevant_one(self) -> None:
        queries = {f"q{i}": f"what {i}" for i in range(12)}
        documents = {f"d{i}": f"that {i}" for i in range(60)}
        task = Retrieval(
            queries, documents, {f"q{i}": [f"d{i}"] for i in range(12)}, max_documents=20
        )
        assert len(task.documents) == 20
        assert {f"d{i}" for i in range(12)} <= set(task.documents)
        assert "20 of 60 documents are ranked" in task.warnings[0]

    def test_a_folder_of_beir_is_read_by_name_of_the_folder(self, tmp_path: Path) -> None:
        task = load_task(beir_folder(tmp_path / "facts"))
        assert isinstance(task, Retrieval)
        assert task.name == "facts"
        assert task.documents["d3"] == "T3 that 3"
        graded = {q.id: dict(q.relevant) for part in task.rows.values() for q in part}
        assert graded == {f"q{i}": {f"d{i}": float(i % 3)} for i in range(20) if i % 3}


@pytest.mark.parametrize("make", [lambda: SentenceSimilarity(pairs()), search])
def test_a_saved_task_is_the_same(make: Any, tmp_path: Path) -> None:
    task = make()
    again = task_from_dict(json.loads(json.dumps(task.save(tmp_path))), tmp_path)
    assert again.fingerprint == task.fingerprint
    assert again.part_texts("calibration") == task.part_texts("calibration")
    model = encoder()
    one, other = (t.evaluate(t.bind(model)) for t in (task, again))
    assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one.columns)


def test_a_model_that_is_not_bound_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not bound"):
        search().evaluate(encoder())


def test_the_loss_of_pairs_is_that_of_its_definition() -> None:
    task = search()
    model = task.bind(encoder())
    objective = Paired(task)
    examples = objective.examples(model)
    batch = batch_of(model, "calibration", examples[:8])
    pairs = task.pairs(model, "calibration")[:8]
    vectors = [
        torch.cat([task.vectors(model, batch_of(model, "calibration", [e])) for e in side])
        for side in ([p.first for p in pairs], [p.second for p in pairs])
    ]
    similar = 20 * vectors[0] @ vectors[1].T
    wanted = 0.0
    for i, pair in enumerate(pairs):
        others = [j for j, p in enumerate(pairs) if p.second.index not in pair.relevant or j == i]
        assert len(others) < len(pairs)  # another answer to the same query is no negative
        wanted -= float(similar[i, others].log_softmax(0)[others.index(i)])
    assert float(objective.loss(model, batch)) == pytest.approx(wanted, rel=1e-5)


def test_the_order_loss_is_cosents() -> None:
    cosines, scores = torch.tensor([0.2, 0.9, -0.3, 0.4]), torch.tensor([1.0, 0.0, 2.0, 1.0])
    terms = [
        np.exp(20 * (float(cosines[j]) - float(cosines[i])))
        for i in range(4)
        for j in range(4)
        if scores[i] > scores[j]
    ]
    assert float(order_loss(cosines, scores)) == pytest.approx(np.log(1 + sum(terms)), rel=1e-6)


def alike() -> SentenceSimilarity:
    """Return pairs that are alike where both are of one topic."""
    scores = [float(i % 4 == (i // 2) % 4) for i in range(160)]
    return SentenceSimilarity({**pairs(160), "score": scores})


@pytest.mark.parametrize("make", [alike, lambda: search(80)])
def test_fine_tuning_learns_the_pairs(make: Any, tmp_path: Path) -> None:
    task = make()
    model = load_model(sentence_folder(tmp_path / "m", most=40), device="cpu")
    with Study(model, task, tmp_path / "s", calibration=CALIBRATION) as study:
        before = study.run([])
        after = study.run(FineTuning(epochs=8, learning_rate=5e-3, patience=None))
        bound = before.model()
        losses = []
        for one in (bound, after.model()):
            objective = Paired(task)
            judged = [objective.judge(one, b) for b in objective.validation(one, 100)]
            losses.append(sum(found[0] for found in judged))
        assert losses[1] < 0.9 * losses[0]


def test_a_study_of_vectors(tmp_path: Path) -> None:
    task = search()
    model = load_model(sentence_folder(tmp_path / "m", pooling_mode_cls_token=True), device="cpu")
    with Study(model, task, tmp_path / "s", calibration=CALIBRATION) as study:
        dense = study.run([])
        coarse = study.run(RTN(2, group_size=8))
        fine = study.run(GPTQ(8, group_size=8))
        assert dense["kl"] == 0
        assert 0 <= fine["kl"] < coarse["kl"]
        predicted = [study.predict(RTN(bits, group_size=8)).kl for bits in (8, 4, 2)]
        assert predicted == sorted(predicted)
        assert study.flips(study.runs[0], coarse).rows[0].after.startswith("nDCG@10 ")
        short = study.run(DepthPruning(n_blocks=1))
        taught = study.run([DepthPruning(n_blocks=1), Distillation(epochs=4, learning_rate=1e-3)])
        assert taught["kl"] < short["kl"]
        with pytest.raises(ConfigError, match="no labels to learn"):
            study.run([DepthPruning(n_blocks=1), Distillation(hard_weight=0.5, epochs=1)])
        study.export(coarse, tmp_path / "x", format="hf")
        model_again = load_model(tmp_path / "x", device="cpu")
        assert sentence_encoding("x", model_again.beside).pooling == "cls"
        assert (tmp_path / "x" / "1_Pooling" / "config.json").is_file()
        text = ["where is warm tea?"]
        assert np.allclose(
            task.embed(model_again, text), task.embed(coarse.model(), text), atol=1e-5
        )
        kept = coarse.model().anchors
    (file,) = (tmp_path / "s").rglob("*.anchors.safetensors")
    with Study.open(tmp_path / "s") as reopened:
        again = reopened.runs[1].model().anchors
        assert kept is not None
        assert again is not None
        assert torch.equal(again.vectors, kept.vectors)
        assert reopened.run(RTN(2, group_size=8)).id == coarse.id
    flipped = bytearray(file.read_bytes())
    flipped[-2] ^= 1
    file.write_bytes(flipped)
    with (
        Study.open(tmp_path / "s") as damaged,
        pytest.raises(StudyError, match="anchors are damaged"),
    ):
        damaged.run(RTN(3, group_size=8))
