"""Tests of the panels and of the whole workbench, without a browser or a model."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from tests.widgets.fake import FakeStudy, event, record
from workbench.errors import StudyError
from workbench.predict import Prediction
from workbench.recipe import Recipe
from workbench.records import RunState
from workbench.steps import GPTQ, RTN
from workbench.sweep import Event
from workbench.widgets.app import Workbench
from workbench.widgets.frontier import FrontierPanel
from workbench.widgets.table import table_html


@pytest.fixture
def study():
    return FakeStudy()


@pytest.fixture
def bench(study):
    return Workbench(study)


def points(panel):
    return {run for trace in panel.figure.data for run in (trace.customdata or ())}


def from_a_thread(call, *arguments):
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    thread.join()


def test_run_submits_what_the_form_shows(study, bench):
    bench.run_panel.form.value = GPTQ(3, group_size=32)
    bench.run_panel.run.click()
    (recipes, on_event), *others = study.submitted
    assert recipes == [GPTQ(3, group_size=32)]
    assert on_event == bench.run_panel.on_event
    assert others == []
    assert bench.run_panel.code() == "study.run(wb.GPTQ(3, group_size=32))"
    assert "wb.GPTQ(3, group_size=32)" in bench.run_panel._code.value


def test_a_run_from_click_to_point(study, bench):
    panel = bench.run_panel
    panel.run.click()
    assert panel.cancel.disabled
    from_a_thread(panel.on_event, event("queued"))
    assert not panel.cancel.disabled
    from_a_thread(panel.on_event, event("started", waiting=2))
    assert "2 more waiting" in panel.status.value
    from_a_thread(panel.on_event, event("progress", stage="evaluate", done=3, total=10))
    panel._progress.flush()
    assert (panel.bar.value, panel.bar.max) == (3, 10)
    assert "evaluate 3/10" in panel.status.value
    study.records.append(record("b", 500_000, 0.85, RTN(4)))
    from_a_thread(panel.on_event, event("finished"))
    for part in (bench.frontier, bench.table, bench.choose_panel):
        part.refresh.flush()
    assert points(bench.frontier) == {"dense", "a", "b"}
    assert "RTN 4-bit g128" in bench.table.widget.value
    assert panel.bar.value == panel.bar.max
    panel.on_event(Event("idle", 1))
    assert panel.cancel.disabled


def test_cancel_is_one_verb(study, bench):
    bench.run_panel.on_event(event("started"))
    bench.run_panel.cancel.click()
    assert study.cancelled == 1
    assert bench.run_panel.cancel.disabled
    bench.run_panel.on_event(event("cancelled", error="Cancelled."))
    assert "finished runs are kept" in bench.run_panel.status.value


def test_a_failed_run_is_a_visible_banner_with_escaped_reason(bench):
    bench.run_panel.on_event(event("failed", error="no <b>memory</b>"))
    assert "no &lt;b&gt;memory" in bench.banner.widget.value
    assert bench.banner.widget.layout.display != "none"


def test_exceptions_of_callbacks_are_visible(study, bench):
    study.fail_with = StudyError("The study is closed; open it again.")
    bench.run_panel.run.click()
    assert "The study is closed" in bench.banner.widget.value
    study.fail_with = None
    bench.run_panel.run.click()
    assert bench.banner.widget.layout.display == "none"


def test_values_that_do_not_go_together_are_told_when_run_is_clicked(study, bench):
    form = bench.run_panel.form
    form.method.value = "MagnitudePruning"
    form.form.control("n").set(2)
    bench.run_panel.run.click()
    assert study.submitted == []
    assert bench.banner.text


def test_a_deleted_journal_does_not_break_the_events(study, bench):
    def gone():
        raise StudyError("gone")

    study.table = gone
    bench.run_panel.on_event(event("finished"))
    bench.table.refresh.flush()
    assert bench.banner.text == "gone"


def test_one_figure_is_alive_and_is_changed_in_place(study):
    panel = FrontierPanel(study)
    first = panel.figure
    study.records.append(record("b", 500_000, 0.85, RTN(4)))
    panel.refresh()
    panel.refresh.flush()
    assert panel.figure is first
    assert points(panel) == {"dense", "a", "b"}
    panel.log_x.value = True
    assert first.layout.xaxis.type == "log"
    panel.rebuild()
    assert panel.figure is not first
    assert first.comm is None  # closed, so that its 5 MB go
    assert panel.widget.children[0] is panel.figure
    assert panel.figure.layout.xaxis.type == "log"


def test_what_is_predicted_is_shown_beside_what_is_measured(study):
    panel = FrontierPanel(study)
    first = panel.figure
    study.predictions = [
        ("tiny", Prediction(Recipe.of(RTN(3)), 800_000, 0.1, None, "accuracy", 0.85, (0.8, 0.9)))
    ]
    panel.refresh()
    panel.refresh.flush()
    assert panel.figure is first
    (hollow,) = [t for t in panel.figure.data if t.name == "RTN, predicted"]
    assert list(hollow.x) == [0.8]
    assert "predicted, not measured" in hollow.hovertext[0]
    study.records.append(record("b", 800_000, 0.84, RTN(3)))
    panel.refresh()
    panel.refresh.flush()
    assert hollow.x == ()
    assert points(panel) == {"dense", "a", "b"}


def test_many_events_update_the_figure_a_few_times(study, bench, monkeypatch):
    drawn = []
    monkeypatch.setattr("workbench.widgets.frontier.update_figure", lambda *a, **k: drawn.append(1))
    for _ in range(100):
        bench.frontier.refresh()
    bench.frontier.refresh.flush()
    assert 1 <= len(drawn) <= 3


def test_choose_panel_answers(study, bench):
    assert "GPTQ 4-bit g128 passes" in bench.choose_panel.answer.value
    bench.choose_panel.bar.value = 1.0
    assert "No run passes" in bench.choose_panel.answer.value
    assert bench.choose_panel.code() == "study.choose(accuracy=1)"


def test_choose_panel_before_the_baseline_is_measured(study):
    study.records[0] = replace(study.records[0], state=RunState.RUNNING)
    assert "no measured accuracy yet" in Workbench(study).choose_panel.answer.value


def test_code_of_the_whole(bench):
    assert bench.code().splitlines() == [
        "study.run(wb.RTN(4))",
        "study.plot()",
        "study.choose(accuracy=0.97)",
        "study.table()",
    ]


def test_table_escapes_and_shows_failures(study):
    study.records.append(
        record("f", None, None, RTN(2), state=RunState.FAILED, error="<script>x</script>")
    )
    text = table_html(study.table(), "accuracy")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<tr>") == 4
    assert text.count("★") == 2


def test_what_is_saved_shows_the_plot_without_a_kernel(study, bench):
    saved = bench._saved()
    assert "data:image/svg+xml;base64," in saved["text/html"]
    assert "GPTQ 4-bit g128" in saved["text/html"]
    assert "<script" not in saved["text/html"]
    assert len(json.dumps(saved)) < 40_000


def test_the_picture_is_hidden_only_by_the_living_widget(bench):
    css = bench._css
    assert f'class="{css}"' in bench._saved()["text/html"]
    hide = bench.widget.children[-1].value
    assert hide == f"<style>.{css} {{ display: none; }}</style>"
    assert "<style>." + css not in bench._saved()["text/html"]


def test_display_rebuilds_the_figure_and_emits_a_picture(bench, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    old = bench.frontier.figure
    bench._ipython_display_()
    assert shown[0][0] == (bench.widget,)
    assert shown[1][1]["raw"] is True
    assert bench.frontier.figure is not old
