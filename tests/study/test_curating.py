"""What the user says of runs, what is deleted, and what is on the disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest

from tests.toy import toy_study
from workbench import Study
from workbench.errors import ConfigError, StudyError
from workbench.recipes import GPTQ, RTN
from workbench.records import RunState
from workbench.study.curating import studies


@pytest.fixture
def study(tmp_path):
    with toy_study(tmp_path / "study") as study:
        study.sweep([RTN(4, group_size=8), RTN(2, group_size=8)])
        yield study


def test_a_name_stands_everywhere_in_place_of_the_recipe(study):
    run = study["RTN 4-bit g8"]
    run.name, run.tags, run.note = " the <b>one</b> ", ["small", "small", "Ann"], "ship\nit"
    run.starred = True
    again = Study.open(study.path)["the <b>one</b>"]
    assert again.id == run.id
    assert (again.label, again.tags, again.note) == ("the <b>one</b>", ("small", "Ann"), "ship\nit")
    assert again.starred
    assert again.recipe == run.recipe
    assert study["RTN 4-bit g8"].id == run.id, "the recipe's words find it too"
    row = study.table().loc[run.id]
    assert (row["recipe"], row["name"], row["tags"]) == ("RTN 4-bit g8", run.name, "small, Ann")
    point = next(p for p in study.plot().view.points if p.run_id == run.id)
    assert point.label == run.name
    assert "<b>one" not in "".join(str(trace.hovertext) for trace in study.plot().data)
    run.name = None
    assert run.label == "RTN 4-bit g8"


def test_hidden_runs_are_left_out_and_chosen_from_all_the_same(study):
    run = study["RTN 2-bit g8"]
    before = study.choose(0.5, metric="perplexity")
    run.hidden = True
    assert run.id not in study.table().index
    assert run.id in study.table(hidden=True).index
    assert run.id not in [point.run_id for point in study.plot().view.points]
    after = study.choose(0.5, metric="perplexity")
    assert len(after.verdicts) == len(before.verdicts), "hiding what fails changes no test"


def test_runs_are_selected_by_what_is_said_of_them(study):
    four, two = study["RTN 4-bit g8"], study["RTN 2-bit g8"]
    four.tags, two.note, two.starred = ["keep", "x"], "too Bad", True
    assert study.select(tags="keep") == [four]
    assert study.select(tags=["keep", "nothing"]) == []
    assert study.select("bad 2-bit") == [two]
    assert study.select(starred=True) == [two]
    assert len(study.select(state="done")) == 3
    with pytest.raises(ConfigError, match="state="):
        study.select(state="gone")


def test_what_is_no_name_or_tag_is_refused(study):
    run = study["RTN 4-bit g8"]
    for name, value in {"name": 5, "tags": "one", "note": "x" * 30_000, "starred": "maybe"}.items():
        with pytest.raises(ConfigError):
            setattr(run, name, value)


def test_another_process_sees_what_is_said_and_both_are_kept(study):
    run = study["RTN 4-bit g8"]
    assert study.records
    run.starred = True
    code = (
        "import sys; from workbench import Study\n"
        "run = Study.open(sys.argv[1])[sys.argv[2]]\n"
        "assert run.starred; run.name = 'theirs'; run.tags = ['t']"
    )
    subprocess.run([sys.executable, "-c", code, str(study.path), run.id], check=True)
    said = next(r for r in study.records if r.id == run.id).annotation
    assert (said.name, said.tags, said.starred) == ("theirs", ("t",), True)


def test_what_is_said_survives_that_a_run_is_computed_again(study):
    run = study["RTN 4-bit g8"]
    run.name = "mine"
    study._workspace.store.outcomes_path(run.id).unlink()
    study.run(RTN(4, group_size=8))
    assert (run.state, run.name) == (RunState.DONE, "mine")


def test_deleting_frees_what_was_said_and_is_recorded(study):
    four, two = study["RTN 4-bit g8"], study["RTN 2-bit g8"]
    two.name = "bad one"
    promised = study.would_free([two])
    before = sum(study.disk_use().values()) - study.disk_use()["journal"]
    assert promised > 0
    assert study.delete([two]) == promised
    after = sum(study.disk_use().values()) - study.disk_use()["journal"]
    assert before - after == promised
    assert four.model() is not None
    kept = study.deletions
    assert list(kept["label"]) == ["bad one"]
    assert list(kept["run"]) == [two.id]
    assert kept["freed_bytes"][0] == promised
    with pytest.raises(StudyError, match="no run"):
        study.delete(two.id)


def test_runs_that_share_weights_are_not_harmed(study):
    four = study["RTN 4-bit g8"]
    db = sqlite3.connect(study.path / "study.sqlite")
    other = study.run(GPTQ(4, group_size=8))
    digest = four.record.facts["artifact"]
    db.execute("UPDATE runs SET artifact = ? WHERE id = ?", (digest, other.id))
    db.commit()
    db.close()
    weights = study.path / "artifacts" / f"{digest}.safetensors"
    outcomes = study.path / "outcomes" / f"{four.id}.npz"
    assert study.would_free(four) == outcomes.stat().st_size, "not the weights that are shared"
    assert study.would_free([four, other]) > weights.stat().st_size
    four.delete()
    assert weights.exists()


def test_all_runs_can_go_at_once(study):
    study.delete(study.runs)
    assert study.runs == ()


def test_what_is_cleaned_is_made_again(study):
    run = study["RTN 4-bit g8"]
    assert study.disk_use()["weights"] > 0
    freed = study.clean("weights")
    assert freed > 0
    assert study.disk_use()["weights"] == 0
    assert run.model() is not None
    assert study.disk_use()["weights"] > 0
    with pytest.raises(ConfigError, match="weights, statistics"):
        study.clean("outcomes")


def test_studies_are_listed_with_what_they_are_of(study, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "study.sqlite").write_text("no journal")
    found = studies(tmp_path)
    assert set(found.index) == {str(study.path), str(broken)}
    row = found.loc[str(study.path)]
    assert (row["models"], row["task"], row["runs"], row["problem"]) == ("tiny", "toy", 3, "")
    assert row["size_mb"] > 0
    assert "damaged" in found.loc[str(broken)]["problem"]
