"""Tests of the panels around one study, and of the whole, without a browser or a model."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ipywidgets.widgets.widget import _instances

import workbench as wb
from tests.app.fake import FakeStudy, event, record
from workbench.app.inspector_client import _Question
from workbench.app.panels.runs import table_html
from workbench.app.workbench import (
    CODE,
    COMPARE,
    EXPLORE,
    KEEP,
    LINEAGE,
    PLAN,
    START,
    TRUST,
    Workbench,
)
from workbench.errors import ConfigError, StudyError
from workbench.prediction.predict import Prediction
from workbench.recipes import AWQ, GPTQ, RTN, Cast, MagnitudePruning, Mixed
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, RunState
from workbench.study.running.runner import Event


@pytest.fixture
def study():
    return FakeStudy()


@pytest.fixture
def bench(study):
    return Workbench(study)


def points(panel):
    named = [trace.customdata or () for trace in panel.figure.data]
    return {run for runs in named for run in runs}


def trace(bench, name):
    return next(trace for trace in bench.panels.frontier.figure.data if trace.name == name)


def from_a_thread(call, *arguments):
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    thread.join()


def flush(bench):
    for part in (bench.panels.frontier, bench.panels.table, bench.panels.choose):
        part.refresh.flush()


# The recipe


def test_run_submits_what_the_form_shows(study, bench):
    bench.panels.recipe.form.value = GPTQ(3, group_size=32)
    bench.panels.recipe.run.click()
    (recipes, on_event), *others = study.submitted
    assert recipes == [Recipe.of(GPTQ(3, group_size=32))]
    assert on_event == bench._session.events.emit
    assert others == []
    assert bench.panels.recipe.code() == "study.run(wb.GPTQ(3, group_size=32))"
    assert "wb.GPTQ(3, group_size=32)" in bench.panels.recipe._code.value


def test_a_slider_moves_the_predicted_point(bench):
    bench.panels.recipe.form.value = GPTQ(4)
    draft = trace(bench, "this recipe, predicted")
    assert list(draft.x) == [1.0]
    bench.panels.recipe.form.form.control("bits").set(2)
    assert list(draft.x) == [0.5]
    assert bench.panels.frontier.figure.layout.xaxis.range[0] < 0.5  # room is made for it
    assert "predicted, not measured" in draft.hovertext[0]
    assert "0.85" in bench.panels.recipe.estimate.value
    bench.panels.recipe.form.method.value = "Cast"
    assert not draft.x
    assert "not predicted: training" in bench.panels.recipe.estimate.value


def test_steps_are_added_moved_and_removed(bench):
    panel = bench.panels.recipe
    panel.form.value = MagnitudePruning(0.3)
    panel.add.click()
    panel.form.value = GPTQ(4)
    assert panel.recipe == Recipe.of([MagnitudePruning(0.3), GPTQ(4)])
    _, second, _ = panel._list.children
    second.children[1].click()  # earlier: codes would be destroyed by pruning
    assert "cannot follow" in panel.problem.value
    panel._list.children[0].children[2].click()  # and back again
    assert panel.problem.value == ""
    assert panel.recipe == Recipe.of([MagnitudePruning(0.3), GPTQ(4)])
    panel._list.children[0].children[0].click()
    assert panel.form.value == MagnitudePruning(0.3)
    panel._list.children[0].children[3].click()
    assert panel.recipe == Recipe.of(GPTQ(4))
    assert panel._list.children[0].children[3].disabled  # a recipe has at least one step


def test_a_recipe_continues_from_runs_of_the_model_that_it_is_run_on(study, bench):
    study.records.append(replace(record("b", 1, 0.8, RTN(3)), model="other"))
    bench.panels.recipe.refresh()
    assert [run for _, run in bench.panels.recipe.source.options] == ["", "a"]


def test_a_step_without_numbers_cannot_be_swept_over(bench):
    bench.panels.recipe.form.value = Cast()
    assert bench.panels.recipe.sweep.disabled
    bench.panels.recipe.form.value = RTN(4)
    assert not bench.panels.recipe.sweep.disabled


def test_a_recipe_continues_from_a_run(study, bench):
    bench.panels.recipe.source.value = "a"
    first, second = bench.panels.recipe.recipe.steps  # one that has a meaning behind codes
    assert first == GPTQ(4)
    assert type(second).__name__ == "LowRankCorrection"


def test_a_sweep_over_a_setting(study, bench):
    panel = bench.panels.recipe
    panel.form.value = RTN(4)
    assert panel.field.value == "bits"
    panel.values.value = "2, 3,8"
    panel.sweep.click()
    assert study.submitted[0][0] == [Recipe.of(RTN(bits)) for bits in (2, 3, 8)]
    panel.values.value = "2, many"
    panel.sweep.click()
    assert len(study.submitted) == 1
    assert "'many' is no value of 'bits'" in panel.sweep_notice.text


def test_values_that_do_not_go_together_are_told_at_once_and_not_run(study, bench):
    bench.panels.recipe.form.value = MagnitudePruning(0.5)
    bench.panels.recipe.form.form.control("n").set(2)
    assert 'role="alert"' in bench.panels.recipe.problem.value
    bench.panels.recipe.run.click()
    assert study.submitted == []
    assert bench.panels.recipe.notice.text


def test_what_is_estimated_is_called_so(study, bench):
    study.records[1] = replace(study.records[1], seconds={"load": 60.0, "compress": 5.0})
    bench.panels.recipe.form.value = GPTQ(3)
    assert "about 5 s" in bench.panels.recipe.estimate.value
    assert "Estimated" in bench.panels.recipe.estimate.value


# The queue


def test_a_run_from_click_to_point(study, bench):
    panel = bench.panels.queue
    bench.panels.recipe.run.click()
    assert panel.cancel.disabled
    from_a_thread(bench._session.events.emit, event("queued"))
    assert not panel.cancel_all.disabled
    assert panel.pending == ((Recipe.of(RTN(4)), "queued"),)
    from_a_thread(bench._session.events.emit, event("started", waiting=2))
    assert "2 more waiting" in panel.status.value
    flush(bench)
    assert list(trace(bench, "queued or running").x) == [1.0]
    from_a_thread(bench._session.events.emit, event("progress", stage="evaluate", done=3, total=10))
    panel._progress.flush()
    assert panel.bar.value == 0.3
    assert "evaluating 3 of 10" in panel.status.value
    study.records.append(record("b", 500_000, 0.85, RTN(4)))
    from_a_thread(bench._session.events.emit, event("finished"))
    flush(bench)
    assert points(bench.panels.frontier) >= {"dense", "a", "b"}
    assert not trace(bench, "queued or running").x
    assert "RTN 4-bit g128" in bench.panels.table.widget.html
    assert panel.bar.value == 1
    bench._session.events.emit(Event("idle", 1))
    assert panel.cancel.disabled
    assert panel.pending == ()


def test_cancel_is_one_verb(study, bench):
    bench._session.events.emit(event("started"))
    bench.panels.queue.cancel.click()
    assert study.cancelled == [True]
    assert bench.panels.queue.cancel.disabled
    bench._session.events.emit(event("cancelled", error="Cancelled."))
    assert "finished runs are kept" in bench.panels.queue.status.value
    bench._session.events.emit(event("started", job=2))
    bench.panels.queue.cancel_all.click()
    assert study.cancelled == [True, False]


def test_jobs_that_wait_are_moved_and_removed_one_by_one(study, bench):
    panel = bench.panels.queue
    study.queue = (1, 2)
    for job in study.queue:
        bench._session.events.emit(event("queued", RTN(job + 1), job=job))
    assert [job for _, job in panel.waiting.options] == [1, 2]
    panel.waiting.value = 2
    panel.earlier.click()
    assert [job for _, job in panel.waiting.options] == [2, 1]
    assert panel.waiting.value == 2
    panel.remove.click()
    assert study.cancelled == [2]
    study.queue = ()
    bench._session.events.emit(event("cancelled", RTN(3), job=2, error="Removed."))
    assert panel._waiting.layout.display == "none"


def test_editing_a_recipe_leaves_no_widgets_behind(bench):
    form = bench.panels.recipe.form
    for bits in (2, 3):
        form.value = GPTQ(bits)
    before = len(_instances)
    for bits in (4, 5, 6, 4, 3):
        form.value = GPTQ(bits)
    assert len(_instances) <= before


def test_progress_that_is_being_shown_when_a_run_ends_has_not_the_last_word(bench, monkeypatch):
    panel = bench.panels.queue
    bench._session.events.emit(event("started"))

    def ends_meanwhile(*_):
        with monkeypatch.context() as patch:
            patch.setattr(panel._progress, "flush", lambda: None)  # it is what is running here
            bench._session.events.emit(event("cancelled", error="Cancelled."))
        return ""

    monkeypatch.setattr(panel, "_left", ends_meanwhile)
    panel._show_progress(event("progress", stage="evaluate", done=3, total=10))
    assert "was cancelled" in panel.status.value
    assert panel.bar.value == 0


def test_a_failed_run_is_a_visible_banner_with_escaped_reason(bench):
    bench._session.events.emit(event("failed", error="no <b>memory</b>"))
    assert "no &lt;b&gt;memory" in bench.notice.widget.value
    assert "no &lt;b&gt;memory" in bench.panels.queue.list.value
    assert bench.notice.widget.layout.display != "none"


def test_exceptions_of_callbacks_are_visible(study, bench):
    study.fail_with = StudyError("The study is closed; open it again.")
    bench.panels.recipe.run.click()
    assert "The study is closed" in bench.panels.recipe.notice.widget.value
    study.fail_with = None
    bench.panels.recipe.run.click()
    assert bench.panels.recipe.notice.widget.layout.display == "none"


def test_a_deleted_journal_does_not_break_the_events(study, bench):
    def gone(metric=None):
        raise StudyError("gone")

    study.table = gone
    bench._session.events.emit(event("finished"))
    bench.panels.table.refresh.flush()
    assert bench.panels.table.notice.text == "gone"


# The plot


def test_what_fails_later_is_told_too(study, bench):
    bench.panels.table.refresh()

    def gone(metric=None):
        raise StudyError("gone")

    study.table = gone
    bench.panels.table.refresh()  # waits for its turn in a thread
    until = time.monotonic() + 10
    while not bench.panels.table.notice.text and time.monotonic() < until:
        time.sleep(0.02)
    assert bench.panels.table.notice.text == "gone"


def test_one_figure_is_alive_and_is_changed_in_place(study, bench):
    panel = bench.panels.frontier
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
    assert first.comm is None  # closed
    assert panel.figure.layout.xaxis.type == "log"


def test_the_figures_state_has_no_plotly_in_it(bench):
    state = json.dumps(bench.panels.frontier.figure.get_state(), default=str)
    assert len(state) < 60_000


def test_a_page_that_shows_the_figure_is_sent_it_as_it_is_now(study, bench, monkeypatch):
    figure, sent = bench.panels.frontier.figure, []
    monkeypatch.setattr(figure, "send_state", lambda key: sent.append(key))
    monkeypatch.setattr(figure, "send", lambda content: sent.append(content))
    study.records.append(record("b", 500_000, 0.85, RTN(4)))
    bench.panels.frontier.refresh()
    bench.panels.frontier.refresh.flush()
    figure._asked(figure, {"type": "show", "needed": False}, [])
    assert sent[-2:] == [["_widget_data", "_widget_layout"], {"type": "fresh"}]
    state = figure.get_state(sent[-2])
    assert "b" in {run for data in state["_widget_data"] for run in data.get("customdata", ())}


def test_what_is_predicted_is_shown_beside_what_is_measured(study, bench):
    study.predictions = [
        ("tiny", Prediction(Recipe.of(RTN(3)), 800_000, 0.1, None, "accuracy", 0.85, (0.8, 0.9)))
    ]
    bench.panels.frontier.refresh()
    bench.panels.frontier.refresh.flush()
    hollow = trace(bench, "RTN, predicted")
    assert list(hollow.x) == [0.8]
    study.records.append(record("b", 800_000, 0.84, RTN(3)))
    bench.panels.frontier.refresh()
    bench.panels.frontier.refresh.flush()
    assert hollow.x == ()


def test_an_axis_that_was_not_measured_says_what_to_do(study, bench):
    bench.panels.frontier.axis.value = "latency"
    assert "No run has a measured latency" in bench.panels.frontier.note.value
    study.records[0] = replace(
        study.records[0],
        measurements=(*study.records[0].measurements, Measurement("latency_ms", 12.0, "ms")),
    )
    bench.panels.frontier.refresh()
    bench.panels.frontier.refresh.flush()
    assert bench.panels.frontier.note.value == ""
    assert list(trace(bench, "dense baseline").x) == [12.0]


def test_what_is_in_another_unit_than_the_plot_is_not_in_it(bench):
    bench.panels.choose.limits.size_mb.value = 2
    bench.panels.recipe.form.value = GPTQ(3)
    figure = bench.panels.frontier.figure

    def drawn():
        return len(trace(bench, "this recipe, predicted").x or ())

    assert (drawn(), figure.layout.shapes[0].y0) == (1, pytest.approx(0.873))
    bench.panels.frontier.metric.value = "kl"  # what is predicted and asked for is an accuracy
    assert (drawn(), figure.layout.shapes[0].x1) == (0, 2)
    assert figure.layout.shapes[0].y0 != pytest.approx(0.873)
    bench.panels.recipe.form.value = GPTQ(2)
    assert drawn() == 0
    bench.panels.frontier.metric.value = "accuracy"
    assert drawn() == 1
    bench.panels.frontier.axis.value = "latency"  # ms, and its place is of its size
    assert drawn() == 0
    assert not figure.layout.shapes[0].visible or figure.layout.shapes[0].x1 != 2
    bench.panels.frontier.axis.value = "size"
    assert drawn() == 1


def test_what_a_reader_must_know_is_below_the_plot_where_it_wraps(bench):
    assert "Bars: 95 % interval" in bench.panels.frontier.caption.value
    assert "Bars" not in str(bench.panels.frontier.figure.layout.annotations)


def test_many_events_update_the_figure_a_few_times(bench, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "workbench.app.panels.frontier.update_live", lambda *a, **k: drawn.append(1)
    )
    for _ in range(100):
        bench.panels.frontier.refresh()
    bench.panels.frontier.refresh.flush()
    assert 1 <= len(drawn) <= 3


def test_the_plot_is_saved_in_the_studys_folder(study, bench):
    bench.panels.frontier.save.value = "svg"
    (saved,) = study.path.glob("*.svg")
    assert saved.read_text().startswith("<svg")
    assert str(saved) in bench.panels.frontier.notice.text
    assert bench.panels.frontier.save.value == ""


def test_a_clicked_prediction_goes_into_the_form_or_where_none_fits_is_run(study, bench):
    bench._edit(Recipe.of(AWQ(3)))
    assert bench.panels.recipe.recipe == Recipe.of(AWQ(3))
    mixed = Recipe.of(Mixed([GPTQ(2), GPTQ(4)], {"layers.0": 0, "layers.1": 1}))
    bench._edit(mixed)
    assert study.submitted[0][0] == [mixed]
    assert "is queued" in bench.notice.text


def test_speed_is_measured_of_what_is_selected_while_nothing_runs(study, bench, monkeypatch):
    asked = []
    monkeypatch.setattr(bench._session.inspector, "ask", lambda *a, **k: asked.append((*a, k)))
    bench.panels.frontier.measure.click()
    assert "Select the runs" in bench.panels.frontier.notice.text
    bench._session.selection.set(["a"])
    study.is_idle = False
    bench.panels.frontier.measure.click()
    assert "would spoil the times" in bench.panels.frontier.notice.text
    study.is_idle = True
    other = record("b", None, None, RTN(4), state=RunState.RUNNING)  # of another kernel
    bench.panels.frontier.notice.clear()
    study.records.append(other)
    bench.panels.frontier.measure.click()
    assert "would spoil the times" in bench.panels.frontier.notice.text
    study.records.remove(other)
    bench.panels.frontier.axis.value = "latency"  # on which nothing has a point yet
    bench.panels.frontier.measure.click()
    assert bench.panels.frontier.notice.text == ""
    ((what, done, failed, _, arguments),) = asked
    assert (what, arguments) == ("measure", {"runs": ["dense", "a"]})
    assert bench.panels.frontier.measure.disabled
    failed("no memory")
    assert "no memory" in bench.panels.frontier._measuring.status.value
    bench.panels.frontier.measure.click()
    done = asked[1][1]
    done({"count": 2, "warnings": ["About 2 of 2 cores are <busy>."]})
    assert "Measured 2 runs. Choose latency" in bench.panels.frontier._measuring.status.value
    assert "are &lt;busy&gt;" in bench.panels.frontier.notice.widget.value
    assert not bench.panels.frontier.measure.disabled
    assert "study.measure('a')" in bench.panels.code.code()


# Selecting, comparing, lineage


def test_selecting_in_one_selects_in_all(bench):
    bench.nav.value = LINEAGE
    bench.panels.table.widget.selected = ["a"]
    assert bench.panels.lineage.table.selected == ["a"]
    assert bench.panels.compare.runs.value == ("a",)
    assert list(trace(bench, "selected").x) == [1.0]
    assert bench.panels.export.run.value == "a"
    bench.panels.compare.runs.value = ("dense", "a")
    assert bench.panels.table.widget.selected == ["a", "dense"]
    bench.panels.lineage.table.selected = []
    assert bench.panels.compare.runs.value == ()


def test_differences_are_a_table_that_marks_what_differs(bench):
    bench.nav.value = COMPARE
    assert "Select runs" in bench.panels.compare.status.value
    bench.panels.compare.runs.value = ("dense", "a")
    table = bench.panels.compare.table.html
    assert '<tr class="wb-differs"><td class="text">recipe</td>' in table
    assert '<tr class="wb-same"><td class="text">model</td>' in table
    assert bench.panels.compare.code() == "study.differences(['dense', 'a'])"


def test_flips_need_two_runs(bench):
    bench.panels.compare.runs.value = ("a",)
    bench.panels.compare.view.value = "flips"
    assert "Select two runs" in bench.panels.compare.status.value
    assert bench.panels.compare.go.disabled


def test_answers_of_the_other_process_are_shown_and_old_ones_are_not(bench, monkeypatch):
    panel, asked = bench.panels.compare, []
    monkeypatch.setattr(
        panel._session.inspector, "ask", lambda what, *a, **k: asked.append((what, *a, k))
    )
    monkeypatch.setattr(panel._session.inspector, "stop", lambda told="": None)
    panel.runs.value = ("dense", "a")
    panel.view.value = "layers"
    panel.go.click()
    panel.stop.click()
    panel.go.click()
    found = {"layers": ["l.0", "l.1"], "runs": ["x<y", "z"], "errors": [[0.1, None], [0.2, 0.3]]}
    asked[0][1](found)  # was stopped
    assert panel.table.html == ""
    asked[1][1](found)
    assert "x&lt;y" in panel.table.html
    assert panel.table.html.count("<tr>") == 3
    assert asked[1][-1] == {"runs": ["dense", "a"]}
    panel.view.value = "generate"
    panel.go.click()
    asked[2][1]({"dense": "<b>", "a": "text"})
    assert "<pre>&lt;b&gt;</pre>" in panel._texts.value
    panel.go.click()
    asked[3][2]("no memory")
    assert "no memory" in panel.status.value
    assert not panel.go.disabled


def test_a_run_that_ends_leaves_what_is_compared_as_it_is(study, bench, monkeypatch):
    bench.nav.value = COMPARE
    panel, asked = bench.panels.compare, []
    monkeypatch.setattr(panel._session.inspector, "ask", lambda *a, **k: asked.append((*a, k)))
    panel.runs.value = ("a",)
    panel.view.value = "layers"
    panel.go.click()
    study.records.append(record("b", 1, 0.8, RTN(3)))
    bench.refresh()
    asked[0][1]({"layers": ["l.0"], "runs": ["a"], "errors": [[0.25]]})
    assert "0.25" in panel.table.html
    study.records.append(record("c", 1, 0.8, RTN(2)))
    bench.refresh()
    assert "0.25" in panel.table.html
    assert [run for _, run in panel.runs.options] == ["dense", "a", "b", "c"]


def test_an_answer_is_not_shown_under_another_view(bench, monkeypatch):
    panel, asked = bench.panels.compare, []
    monkeypatch.setattr(panel._session.inspector, "ask", lambda *a, **k: asked.append((*a, k)))
    panel.runs.value = ("a",)
    panel.view.value = "layers"
    panel.go.click()
    panel.view.value = "generate"
    asked[0][1]({"layers": ["l.0"], "runs": ["a"], "errors": [[0.25]]})
    assert panel.table.html == ""
    assert not panel.go.disabled


def test_what_stop_ends_in_other_panels_is_told_there(bench):
    inspector, told = bench._session.inspector, []
    inspector._open[0] = _Question(lambda a: None, told.append, lambda p: None)
    bench.panels.compare._question._stop()
    assert "Stop was pressed under Compare" in told[0]
    assert not inspector.is_busy


# Choosing and keeping


def test_choose_panel_answers_with_confidence_and_shades_what_passes(study, bench):
    panel = bench.panels.choose
    panel.bar.value = 0.9
    assert "GPTQ 4-bit g128 passes" in panel.answer.value
    assert "✓ passes" in panel.verdicts.html
    panel.limits.size_mb.value = 2.5
    (region,) = bench.panels.frontier.figure.layout.shapes
    assert (region.x1, region.y0) == (2.5, pytest.approx(0.81))
    panel.pick.click()
    assert bench.panels.table.widget.selected == panel.verdicts.selected == ["a"]
    panel.bar.value = 0.985
    assert "No run surely passes" in panel.answer.value
    assert "wb-answer-maybe" in panel.answer.value
    assert "? 100 examples are too few" in panel.verdicts.html
    enough = int(re.search(r"about ([\d,]+) would do", panel.verdicts.html)[1].replace(",", ""))
    assert enough > 100
    assert panel.pick.disabled
    assert panel.chosen is None
    study.records.append(record("<b>", 500_000, 0.5, RTN(2)))
    panel.limits.size_mb.value = None
    assert 'data-id="&lt;b&gt;"' in panel.verdicts.html
    assert "✕ fails" in panel.verdicts.html
    panel.limits.latency_ms.value = 5
    assert "✓" not in panel.verdicts.html
    assert "? unclear: has no measured latency" in panel.verdicts.html


def test_the_bar_is_a_share_of_any_run_by_its_name(study, bench):
    panel = bench.panels.choose
    assert [run for _, run in panel.reference.options] == ["", "a"]
    assert panel.reference.value == "", "the base model, until another is chosen"
    panel.reference.value = "a"
    assert panel.code() == "study.choose(wb.Requirements(accuracy=0.97, reference='a'))"
    assert "○ left out: is not smaller than GPTQ 4-bit g128 (run a)" in panel.verdicts.html
    assert "✕" not in panel.verdicts.html, "a larger model is no failure"
    study.records.append(record("b", 500_000, 0.8, RTN(2)))
    panel.refresh()
    assert panel.reference.value == "a", "further runs change no choice"


def test_a_value_without_an_error_is_no_matter_of_more_examples(study, bench):
    alone = replace(study.records[1].measurements[0], stderr=None)
    study.records[1] = replace(study.records[1], measurements=(alone,))
    bench.panels.choose.bar.value = 0.95
    assert "? unclear: its value has no standard error" in bench.panels.choose.verdicts.html


def test_what_the_choose_panel_asks_for_is_what_its_code_asks_for(study, bench):
    panel, asked = bench.panels.choose, []
    panel.limits.size_mb.value, panel.limits.memory_mb.value = 12.3456789, 30
    panel.confidence.value = 0.9
    study.choose = lambda requirements: asked.append(requirements) or 1 / 0
    panel.limits.latency_ms.value = 1.5
    assert panel.code() == (
        "study.choose(wb.Requirements(accuracy=0.97, size_bytes=12345679, latency_ms=1.5,"
        " memory_bytes=30000000, confidence=0.9))"
    )
    done = []
    eval(panel.code(), {"wb": wb, "study": SimpleNamespace(choose=done.append)})
    assert done == asked


def test_the_report_is_written_by_the_other_process(bench, monkeypatch, tmp_path):
    panel, asked = bench.panels.report, []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench._session.inspector, "ask", lambda *a, **k: asked.append((*a, k)))
    panel.path.value = "out/<r>.html"
    panel.write.click()
    ((what, _, failed, progress, arguments),) = asked
    assert (what, arguments) == (
        "report", {"path": str(tmp_path / "out" / "<r>.html"), "requirements": {"accuracy": 0.97}}
    )  # fmt: skip
    assert panel.write.disabled
    progress({"stage": "evaluate", "done": 1, "total": 3, "detail": ""})
    assert "evaluating 1 of 3" in panel._question.status.value
    failed("The folder cannot be written to")
    assert "cannot be written" in panel._question.status.value
    assert "study.report" not in bench.panels.code.code()
    panel.write.click()
    asked[1][1](arguments["path"])
    assert "out/&lt;r&gt;.html" in panel.written.value
    assert not panel.write.disabled
    assert (
        "study.report('out/<r>.html', wb.Requirements(accuracy=0.97))" in bench.panels.code.code()
    )


def test_choose_panel_before_the_baseline_is_measured(study):
    study.records[0] = replace(study.records[0], state=RunState.RUNNING)
    assert "no measured accuracy yet" in Workbench(study).panels.choose.answer.value


def test_export_offers_formats_and_says_why_others_cannot(bench, monkeypatch):
    panel, asked = bench.panels.export, []
    monkeypatch.setattr(
        panel._session.inspector, "ask", lambda what, *a, **k: asked.append((what, *a, k))
    )
    panel.run.value = "a"
    panel.look.click()
    offer = {"format": "hf", "title": "Transformers", "size_bytes": 4_000_000, "refusal": None}
    offer |= {"is_uncompressed": True, "note": "of <a> head"}
    small = {**offer, "format": "gptq", "size_bytes": 1_000_000, "is_uncompressed": False}
    refused = {"format": "gguf", "title": "GGUF", "size_bytes": None, "refusal": "odd <size>"}
    asked[0][1]([offer, small, refused])
    assert "of &lt;a&gt; head" in panel.answer.value, "said before anything is written"
    assert panel.format.value == "gptq"  # the smallest that keeps the codes
    assert panel.format.options[1] == ("Transformers, stores it uncompressed · 4.00 MB", "hf")
    panel.format.value = "hf"
    assert "odd &lt;size&gt;" in panel.refused.value
    panel.path.value = "out/a"
    panel.export.click()
    what, done, failed, _, arguments = asked[1]
    assert (what, arguments["run"], arguments["format"]) == ("export", "a", "hf")
    failed("The folder is not empty")
    assert "not empty" in panel._question.status.value
    assert "export(" not in bench.panels.code.code()  # a script would end where that failed
    assert not panel.export.disabled
    done({"path": "/out/a", "format": "hf", "bytes_on_disk": 4e6, "largest_difference": 1e-6})
    assert "Wrote /out/a (4.00 MB)" in panel.answer.value
    assert "export('out/a', format='hf', overwrite=True)" in bench.panels.code.code()


def test_a_run_that_is_chosen_anew_has_no_formats_yet(bench, monkeypatch):
    panel, asked = bench.panels.export, []
    monkeypatch.setattr(bench._session.inspector, "ask", lambda *a, **k: asked.append((*a, k)))
    panel.format.options = ["hf"]
    panel.look.click()
    panel.run.value = "dense"
    assert panel.export.disabled
    assert panel.format.options == ()
    offer = {"format": "hf", "title": "Transformers", "size_bytes": 4_000_000, "refusal": None}
    asked[0][1](
        [{**offer, "is_uncompressed": False, "note": ""}]
    )  # of the run that was chosen before
    assert panel.export.disabled
    assert not panel.look.disabled


def test_a_run_that_ends_takes_no_formats_away(study, bench):
    panel = bench.panels.export
    panel.run.value = "a"
    offer = {"format": "hf", "title": "HF", "size_bytes": None, "refusal": None}
    panel._offer([{**offer, "is_uncompressed": False, "note": ""}])
    study.records.append(record("b", 1, 0.8, RTN(3)))
    bench.refresh()
    assert (panel.run.value, panel.format.value) == ("a", "hf")
    assert not panel.export.disabled


def test_the_code_of_an_export_names_the_runs_model(study, bench):
    study.records.append(replace(record("b", 1, 0.8, RTN(3)), model="other"))
    bench.nav.value = KEEP
    bench.refresh()
    bench.panels.export.run.value = "b"
    assert "study.run(wb.RTN(3), model='other').export(" in bench.panels.export.code()


# The whole


def test_tabs_show_one_panel(bench):
    for name in (COMPARE, LINEAGE, TRUST, KEEP, CODE, START, PLAN, EXPLORE):
        bench.nav.value = name
        shown = [n for n, body in bench._bodies.items() if body.layout.display != "none"]
        assert shown == [name]


def test_only_the_tab_that_is_seen_is_refreshed(bench, study, monkeypatch):
    refreshed = []
    for name, panels in bench.panels.of.items():
        for panel in panels if name != LINEAGE else ():  # which asks itself whether it is seen
            monkeypatch.setattr(panel, "refresh", lambda name=name: refreshed.append(name))
    bench.nav.value = EXPLORE
    refreshed.clear()
    bench.refresh()
    assert set(refreshed) == {EXPLORE}
    refreshed.clear()
    bench.nav.value = TRUST
    bench.nav.value = EXPLORE
    bench.nav.value = TRUST
    assert refreshed == [TRUST]  # once for what has changed
    bench.refresh()
    assert refreshed == [TRUST, TRUST]


def test_what_did_not_change_in_the_plot_is_not_sent_again(bench, study):
    figure = bench.panels.frontier.figure
    sent = []
    figure._send_update_msg = lambda *args, **kwargs: sent.append((args, kwargs))
    figure._send_restyle_msg = lambda *args, **kwargs: sent.append((args, kwargs))
    figure._send_relayout_msg = lambda *args, **kwargs: sent.append((args, kwargs))
    bench.panels.frontier._draw()
    assert sent == []


def test_code_of_the_whole(bench):
    assert bench.code().splitlines() == [
        "study.run(wb.GPTQ(4))",
        "study.plot()",
        "study.choose(wb.Requirements(accuracy=0.97))",
        "study.table()",
    ]


def test_the_script_makes_every_finished_run(study, bench):
    study.records.append(record("b", 1, 0.8, [MagnitudePruning(0.3), AWQ(4)]))
    study.records.append(record("f", None, None, Cast("bfloat16"), state=RunState.FAILED))
    bench._session.history.setup = "model = ...\ntask = ..."
    bench.nav.value = CODE
    script = bench.panels.code.text.value
    compile(script, "session", "exec")
    assert "study = wb.Study(model, task, path=" in script
    assert "study.run([])" in script
    assert "        wb.GPTQ(4),\n        [wb.MagnitudePruning(0.3), wb.AWQ(4)],\n" in script
    assert "Cast" not in script
    bench.panels.code.folder.value = "somewhere/else"
    assert "path='somewhere/else'" in bench.panels.code.text.value


def test_the_script_of_a_study_that_is_made_anew_has_all_its_models(study, bench):
    about = study.describe()
    source = about["models"]["tiny"]
    about["models"] |= {"o'ther": {**source, "kind": "folder", "ref": "models/o'ther"}}
    about["models"] |= {"own": source}
    study.describe = lambda: about
    assert "add_model" not in bench.panels.code.code()  # it is opened, and has them
    bench._session.history.setup = "model = ...\ntask = ..."
    script = bench.panels.code.code()
    compile(script, "session", "exec")
    assert """\nstudy.add_model("models/o'ther", name="o'ther")\n""" in script
    assert "\n# study.add_model(..., name='own')" in script


def test_a_script_that_was_changed_is_not_overwritten(bench, tmp_path):
    panel, path = bench.panels.code, tmp_path / "session.py"
    panel.path.value = str(path)
    panel.save.click()
    panel.save.click()
    assert "Saved" in panel.answer.value
    assert panel.notice.text == ""
    path.write_text("mine")
    panel.save.click()
    assert "is there already" in panel.notice.text
    assert path.read_text() == "mine"


def test_a_study_is_begun_with_its_baseline_and_its_predictions(study):
    study.records, study.predicts = [], False
    bench = Workbench(study)
    assert study.submitted == []  # showing a study computes nothing
    bench.begin()
    assert [recipes for recipes, _ in study.submitted] == [[Recipe()]]
    assert study.tabulated == 1
    study.records, study.predicts = [record("dense", 4_000_000, 0.9)], True
    bench.begin()
    assert len(study.submitted) == study.tabulated == 1


def test_only_a_study_or_a_model_is_taken():
    with pytest.raises(ConfigError, match="takes a study or a model, not a int"):
        Workbench(3)


def test_the_head_tells_what_was_loaded_escaped(study):
    study.models = ("<tiny>",)
    about = study.describe()
    study.describe = lambda: {**about, "models": {"<tiny>": about["models"]["tiny"]}}
    text = Workbench(study).head.value
    assert "&lt;tiny&gt;" in text
    assert "1.0 M parameters" in text
    assert "0.9</b> ± 0.02" in text


def test_table_escapes_and_shows_failures(study):
    study.records.append(
        record("f", None, None, RTN(2), state=RunState.FAILED, error="<script>x</script>")
    )
    text = table_html(study.table(), "accuracy")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<tr") == 4
    assert text.count("★") == 2


def test_what_is_saved_shows_the_plot_without_a_kernel(bench):
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
    old = bench.panels.frontier.figure
    bench._ipython_display_()
    assert shown[0][0] == (bench.widget,)
    assert shown[1][1]["raw"] is True
    assert bench.panels.frontier.figure is not old


def test_the_next_step_is_said_below_the_plot_and_done_by_its_button(bench, study):
    panel = bench.panels.next_step
    panel._compute()
    assert "Next: Run &lt;this&gt;." in panel.line.value
    panel.go.click()
    assert study.submitted[-1][0] == [Recipe.of(RTN(3))]
