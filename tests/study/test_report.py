"""Tests of the report: its numbers are the study's, data is escaped, nothing is fetched."""

from __future__ import annotations

import re
import shutil
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.classified import classified_study
from tests.harnessed import MULTIPLE_CHOICE, write_task
from tests.toy import CALIBRATION, toy_model, toy_study
from workbench import CostModel, HarnessTask, Requirements, Study
from workbench.errors import ConfigError, StudyError
from workbench.recipes import RTN
from workbench.records import Measurement


class Page(HTMLParser):
    """Collects the page's numbers by name, its texts, and everything that points elsewhere."""

    def __init__(self, path):
        super().__init__()
        self.numbers, self.links, self.tags, self.words = {}, [], set(), []
        self.open = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        if tag == "data":
            self.numbers.setdefault(found["data-name"], []).append(float(found["value"]))
        self.links += [v for k, v in attrs if k in ("src", "href", "action", "xlink:href")]
        if tag not in ("meta", "br", "path", "circle", "polygon", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with classified_study(tmp_path_factory.mktemp("reported") / "study") as study:
        study.sweep([RTN(2, group_size=8), RTN(4, group_size=8)])
        for n, run in enumerate(study.runs):
            found = [
                Measurement(m, 1.0 + n, "ms", 7, part="", how="dense", conditions="here | x")
                for m in ("latency_ms", "latency_batch32_ms")
            ]
            study._workspace.store.add_measurements(run.id, found)
        yield study


PRICES = CostModel(
    price_per_hour_usd=0.4, queries_per_month=1e6, api_per_1k_usd=0.5, dated="an example, 2025"
)


def trust_of(study, run):
    """Return the trust of a run, one slice whose name looks like a tag before the others."""
    found = study.trust(run)
    return replace(found, slices=tuple(sorted(found.slices, key=lambda s: s.value != "<phone>")))


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    small, large = study.runs[1], study.baseline()
    found = study.report(
        path,
        Requirements(0.5),
        question="Which <b>one</b> & why?",
        cost=PRICES,
        cascade=study.cascade([small, large], cost="size"),
        trust=trust_of(study, study.choose(Requirements(0.5)).run),
    )
    assert found == path
    return path


def test_its_numbers_are_the_studys(study, page):
    numbers = Page(page).numbers
    decision = study.choose(Requirements(0.5))
    measured = decision.run.record.measurement("accuracy")
    assert numbers["chosen accuracy"] == [measured.value]
    assert numbers["chosen size_bytes"] == [decision.run.size_bytes / 1e6]
    assert numbers["chosen quality"] == [decision.quality]
    assert numbers["chosen quality low"] == [decision.interval.low]
    assert numbers["base model accuracy"] == [study.baseline().record.measurement("accuracy").value]
    assert numbers["quality"] == [v.quality for v in decision.verdicts]
    assert numbers["per_1k_usd"] == list(study.costs(PRICES)["per_1k_usd"])
    trust = trust_of(study, decision.run)
    assert numbers["calibration error"] == [trust.before.error]
    assert numbers["flips"] == [trust.flips.rate]
    assert numbers["slice change"] == [s.change for s in trust.slices[:5]]
    routed = study.cascade([study.runs[1], study.baseline()], cost="size")
    assert numbers["cascade accuracy"] == [routed.accuracy]
    assert numbers["cascade share"] == [routed.kept]


def test_it_is_one_file_that_fetches_nothing(page):
    found = Page(page)
    assert found.links == []
    assert not found.open
    assert not {"script", "iframe", "link", "object"} & found.tags
    assert page.stat().st_size < 500_000
    assert "url(" not in page.read_text()
    assert "default-src 'none'" in page.read_text()


def test_what_came_from_data_is_escaped(study, page):
    text = page.read_text()
    assert "<b>one</b>" not in text
    assert "<h1>Which &lt;b&gt;one&lt;/b&gt; &amp; why?</h1>" in text
    assert "tiny-<b>ert" not in text
    assert "<phone>" not in text
    assert "channel: <phone>" in "".join(Page(page).words)


def test_it_says_what_was_asked_and_how_to_load_it(study, page):
    words = " ".join("".join(Page(page).words).split())
    for expected in (
        "at least 50 % of the base model's quality",
        study.choose(Requirements(0.5)).nearest,
        "How to load it",
        "study.model(",
        "an example, 2025",
        "A service asks 0.5 dollars",
        "Mistakes that it is sure of",
    ):
        assert expected in words
    assert re.search(r"@media print", page.read_text())
    assert 'name="viewport"' in page.read_text()


def test_costs_are_compared_with_the_baseline_and_a_service(study):
    found = study.costs(PRICES)
    assert len(found) == 3
    assert found["of_baseline"].tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert found["of_api"].tolist() == [c / 0.5 for c in found["per_1k_usd"]]
    assert found["per_month_usd"].tolist() == [c * 1000 for c in found["per_1k_usd"]]
    assert found["energy_per_1k_kwh"].isna().all()


def test_an_empty_study_and_a_language_model_have_a_report_too(tmp_path):
    with toy_study(tmp_path / "toy") as study:
        empty = Page(study.report(tmp_path / "empty.html"))
        assert "No run can be chosen" in "".join(empty.words)
        study.run(RTN(2, group_size=8))
        found = Page(study.report(tmp_path / "one.html", 0.99, cost=PRICES))
        words = "".join(found.words)
        assert "study.measure(run)" in words
        with pytest.warns(UserWarning, match="No run has measured times"):
            assert study.costs(PRICES).empty
        assert "Where it fails" not in words
        with pytest.raises(ConfigError, match="is a folder"):
            study.report(tmp_path)


def test_a_classifier_without_probabilities_has_a_report_too(study, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ConfigError("more than 256 classes")

    monkeypatch.setattr("workbench.study.trust.trust", refuse)
    words = "".join(Page(study.report(tmp_path / "r.html", Requirements(size_bytes=1e9))).words)
    assert "It cannot be told: more than 256 classes" in words
    assert "How to load it" in words
    assert "The chance of calling" not in words  # limits need no test


def test_times_of_two_machines_are_not_compared(tmp_path):
    with toy_study(tmp_path / "toy") as study:
        study.run(RTN(2, group_size=8))
        for run, place in zip(study.runs, ("here", "there"), strict=True):
            timed = Measurement("latency_ms", 1.0, "ms", 7, part="", conditions=place)
            study._workspace.store.add_measurements(run.id, [timed])
        with pytest.raises(StudyError, match="different conditions"):
            study.costs(PRICES)


def test_multiple_choice_of_the_harness_has_its_part_on_trust(tmp_path):
    pytest.importorskip("lm_eval")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = HarnessTask(write_task(tmp_path / "tasks", "colours", MULTIPLE_CHOICE))
    with Study(toy_model(), task, tmp_path / "study", calibration=CALIBRATION) as study:
        study.run([RTN(4, group_size=8)])
        page = Page(study.report(tmp_path / "report.html", Requirements(0.5)))
        found = study.trust(study.choose(Requirements(0.5)).nearest_run)
    assert "Where it fails" in page.words
    assert "calibration error" in page.numbers
    assert page.numbers["flips"] == [pytest.approx(found.flips.rate)]
    with toy_study(tmp_path / "texts") as study:
        study.run([RTN(4, group_size=8)])
        page = Page(study.report(tmp_path / "texts.html", Requirements(0.5)))
    assert "Where it fails" not in page.words


def test_a_run_that_was_exported_is_loaded_from_its_export(tmp_path):
    with toy_study(tmp_path / "toy") as study:
        run = study.run(RTN(8, group_size=8))
        folder = run.export(tmp_path / "out", "hf").path
        wanted = Requirements(size_bytes=1e9)
        words = "".join(Page(study.report(tmp_path / "r.html", wanted)).words)
        assert f'AutoModelForCausalLM.from_pretrained("{folder.as_posix()}"' in words
        assert "study.model(" not in words
        shutil.rmtree(folder)
        again = "".join(Page(study.report(tmp_path / "again.html", wanted)).words)
        assert "study.model(" in again, "an export that is gone loads nothing"
