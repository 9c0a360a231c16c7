"""The runs table and what is said of runs, without a browser."""

from __future__ import annotations

import pytest

from tests.toy import toy_study
from workbench.app.parts.rows import Rows
from workbench.app.workbench import Workbench
from workbench.recipes import RTN


@pytest.fixture
def study(tmp_path):
    with toy_study(tmp_path / "study") as study:
        study.sweep([RTN(4, group_size=8), RTN(2, group_size=8)])
        yield study


@pytest.fixture
def bench(study):
    return Workbench(study)


def select(bench, *runs):
    bench._session.selection.set([run.id for run in runs])


def test_the_selected_run_is_named_and_shown_by_its_name(bench, study):
    run, panel = study["RTN 4-bit g8"], bench.panels.curate
    select(bench, run)
    panel.name.value, panel.tags.value, panel.note.value = "<b>one</b>", "small, x ,", "ship"
    panel.save.click()
    assert (run.name, run.tags, run.note) == ("<b>one</b>", ("small", "x"), "ship")
    bench.panels.table._refresh()
    assert "&lt;b&gt;one" in bench.panels.table.widget.html
    assert "<b>one" not in bench.panels.table.widget.html
    panel.star.click()
    assert run.starred
    assert panel.star.description == "Take the star away"


def test_several_runs_keep_what_else_they_have(bench, study):
    four, two = study["RTN 4-bit g8"], study["RTN 2-bit g8"]
    four.tags, four.name = ["mine"], "four"
    select(bench, four, two)
    panel = bench.panels.curate
    assert panel.name.disabled
    panel.tags.value = "both"
    panel.save.click()
    assert (four.tags, two.tags, four.name) == (("mine", "both"), ("both",), "four")


def test_hidden_runs_leave_the_table_and_come_back(bench, study):
    run, panel, table = study["RTN 2-bit g8"], bench.panels.curate, bench.panels.table
    select(bench, run)
    panel.hide.click()
    table._refresh()
    assert run.hidden
    assert run.id not in table.widget.html
    panel.hidden.value = True
    table._refresh()
    assert run.id in table.widget.html


def test_deleting_asks_with_what_it_frees(bench, study):
    run, panel = study["RTN 2-bit g8"], bench.panels.curate
    select(bench, run)
    panel.delete.click()
    assert panel.confirm.description.startswith("Delete 1 run for good, frees 0.")
    assert run.id in [r.id for r in study.runs]
    panel.confirm.click()
    assert run.id not in [r.id for r in study.runs]
    assert bench._session.selection.runs == ()
    base = study.baseline()
    select(bench, base)
    panel.delete.click()
    panel.confirm.click()
    assert "Delete those first" in panel.notice.text


def test_runs_are_selected_by_words(bench, study):
    panel = bench.panels.curate
    panel.filter.value = "2-bit"
    panel.select.click()
    assert bench._session.selection.runs == (study["RTN 2-bit g8"].id,)
    panel.filter.value = "nothing like it"
    panel.select.click()
    assert "No run has" in panel.notice.text


def test_columns_are_chosen(bench):
    panel, table = bench.panels.curate, bench.panels.table
    panel._refresh()
    assert "size (MB)" in panel.columns.options
    panel.columns.value = [c for c in panel.columns.options if c != "size (MB)"]
    table._refresh()
    assert "size (MB)" not in table.widget.html
    assert "perplexity" in table.widget.html or "mean loss" in table.widget.html


def test_heads_sort_numbers_as_numbers_and_what_is_missing_last():
    rows = Rows(sortable=True)
    rows.fill(
        [("name", "text"), ("MB", "")],
        [("a", ["x", "10.00"]), ("b", ["Y", "9.5"]), ("c", ["z", "–"])],
    )
    assert rows.html.index("x<") < rows.html.index("Y<")
    rows.sorted_by = 1
    assert rows.html.index(">9.5<") < rows.html.index(">10.00<") < rows.html.index(">–<")
    assert 'aria-sort="ascending"' in rows.html
    rows.descending = True
    assert rows.html.index(">10.00<") < rows.html.index(">9.5<")
    rows.fill([("tag", ""), ("name", "text"), ("MB", "")], [("a", ["", "x", "1"])])
    assert rows.sorted_by == 2, "the column has moved"
    assert rows.html.index("MB ▼") > 0
    rows.fill([("name", "text")], [("a", ["x"])])
    assert 'aria-sort="none"' in rows.html, "a column that is gone sorts nothing"


def test_points_get_names_where_asked_for(bench, study):
    run, panel = study["RTN 2-bit g8"], bench.panels.frontier
    run.name = "<b>two"
    select(bench, run)
    panel._refresh()
    names = panel.figure.data[2]
    assert not names.text
    panel.labels.value = True
    assert "&lt;b&gt;two" in panel.figure.data[2].text
    select(bench)
    study.baseline().starred = True
    panel._refresh()
    assert "dense" in panel.figure.data[2].text


def test_a_study_near_is_opened_by_one_click(study, monkeypatch):
    from workbench.app.parts.study_list import StudyList

    picked = []
    found = StudyList(picked.append)
    found.look(str(study.path.parent)).join(10)
    assert str(study.path) in found.html
    assert "toy" in found.html
    found.selected = [str(study.path)]
    assert picked == [str(study.path)]
    assert found.selected == [], "the same one can be clicked again"


def test_a_text_is_tried_on_the_selected_runs(bench, study, monkeypatch):
    asked, panel = [], bench.panels.tryout
    monkeypatch.setattr(bench._session.inspector, "ask", lambda *a, **k: asked.append((a, k)))
    panel.go.click()
    assert "No run is selected" in panel.notice.text
    run = study["RTN 2-bit g8"]
    select(bench, run)
    panel.text.value = "the <fox>"
    panel.go.click()
    (what, answered, *_), given = asked[0]
    assert (what, given) == ("answers", {"text": "the <fox>", "runs": [run.id], "tokens": 40})
    row = {"run": run.id, "name": "<i>", "answer": "<script>", "confidence": None, "others": ""}
    row |= {"seconds": 0.5, "size_mb": 1.0, "latency_ms": None, "memory_mb": 7.0}
    answered([row])
    assert "&lt;script&gt;" in panel._texts.value
    assert "&lt;i&gt;" in panel.table.html
    assert "study.try_out('the <fox>'" in panel.code()
