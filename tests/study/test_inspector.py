"""What the process that looks into models answers, asked as the application asks it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from tests.classified import classified_study
from workbench import Router
from workbench.recipes import RTN
from workbench.selection.cascades import cascade_of
from workbench.selection.cost import CostModel
from workbench.selection.trust import TrustView
from workbench.study.inspector import answer


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with classified_study(tmp_path_factory.mktemp("asked") / "study") as study:
        study.run(RTN(2, group_size=8))
        yield study


@pytest.fixture
def ask(study):
    """Return a function that asks one question and returns its answer, or raises its error."""

    def asking(what, **arguments):
        told = []
        question = {"number": 1, "ask": what, "with": arguments}
        answer([question], lambda said: told.append(json.loads(json.dumps(said))), study)
        if "error" in told[-1]:
            raise ValueError(told[-1]["error"])
        return told[-1]["answer"]

    return asking


@pytest.fixture(scope="module")
def runs(study):
    return [next(run.id for run in study.runs if run.recipe.steps), study.baseline().id]


def test_trust_crosses_the_border_unchanged(study, ask, runs):
    found = TrustView.from_dict(ask("trust", run=runs[0], threshold=0.6))
    here = study.trust(runs[0], threshold=0.6)
    assert found.before.error == pytest.approx(here.before.error)
    assert [bin.n for bin in found.before.bins] == [bin.n for bin in here.before.bins]
    assert found.slices == here.slices
    assert [one.text for one in found.mistakes] == list(here.confidently_wrong["text"])
    assert len(found.changed) == len(here.flipped)


def test_consistency_takes_the_packages_changes_and_ones_own(ask, runs):
    rows = ask("consistency", run=runs[0], templates=["Note: {text}"])
    assert rows[-1]["perturbation"] == "Note: {text}"
    assert {"lower case", "typos"} <= {row["perturbation"] for row in rows}
    assert all(0 <= row["same"] <= 1 for row in rows)


def test_a_cascade_crosses_the_border_and_becomes_a_router(study, ask, runs, tmp_path):
    asked = {"runs": runs, "signal": "margin", "accuracy": 1.0, "cost": "size"}
    told = ask("cascade", **asked)
    assert cascade_of(told["found"]) == study.cascade(runs, signal="margin", cost="size").found
    assert told["unit"] == "MB"
    folder = ask("router", path=str(tmp_path / "router"), overwrite=False, **asked)
    assert len(Router.load(folder).models) == 2
    with pytest.raises(ValueError, match="exists already"):
        ask("router", path=folder, overwrite=False, **asked)


def test_the_report_has_what_the_other_panels_have(ask, runs, tmp_path):
    prices = vars(CostModel(price_per_hour_usd=2.0))
    path = ask(
        "report",
        path=str(tmp_path / "report.html"),
        requirements={"accuracy": 0.5, "cost_per_1k_usd": 1.0, "cost": prices},
        question="Which <one>?",
        cost=prices,
        cascade={"runs": runs, "signal": "margin", "accuracy": 1.0, "cost": "size"},
    )
    page = Path(path).read_text(encoding="utf-8")
    assert "Which &lt;one&gt;?" in page
    assert "A cascade" in page
    assert "At 2 dollars an hour" in page
    assert "not measured" in page  # its latencies


def test_measuring_tells_which_run_and_how_far(study, ask, runs, monkeypatch):
    from workbench.progress import Progress
    from workbench.study import inspector

    told = []

    def measure(run, on_progress):
        on_progress(Progress("measure", 1, 2, "texts"))
        told.append(run)
        origin = str(inspector.PACKAGE / "measure" / "model.py")
        warnings.warn_explicit("About 2 of 2 cores are busy.", UserWarning, origin, 1)
        warnings.warn_explicit("Not ours.", UserWarning, "elsewhere.py", 1)

    monkeypatch.setattr(study, "measure", measure)
    progress = []
    assert inspector.measure(study, progress.append, runs) == {
        "count": 2,
        "warnings": ["About 2 of 2 cores are busy."],
    }
    assert told == runs
    assert [(p.done, p.total) for p in progress] == [(0, 2), (50, 200), (1, 2), (150, 200)]
    assert "texts" in progress[1].detail
