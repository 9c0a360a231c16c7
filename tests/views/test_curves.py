"""How trainings went, and how one goes that is not done yet."""

from __future__ import annotations

from dataclasses import replace

from tests.app.fake import FakeStudy, event, record
from workbench.app.workbench import Workbench
from workbench.progress import loss_words, losses_of
from workbench.recipes import FineTuning
from workbench.views.curves import loss_curves


def trained(id, name="", **facts):
    told = {
        "loss_curve": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": float("nan")}],
        "training": [{"validation": [[0, 4.0, 0.5], [2, 2.5, 0.4]]}],
    }
    made = record(id, 1_000_000, 0.9, FineTuning(), facts=told | facts)
    return replace(made, annotation=replace(made.annotation, name=name))


def test_losses_and_validations_are_read_from_what_a_run_recorded():
    found = loss_curves([record("a", 1, 0.5), trained("b", "<b>")])
    (curve,) = found.curves
    assert (curve.run, curve.name) == ("b", "<b>")
    assert curve.loss == ((1, 3.0),), "what is no number is no point"
    assert curve.validation == ((0, 4.0), (2, 2.5))
    assert list(found.table["part"]) == ["training", "validation", "validation"]
    figure = found.plot()
    assert [trace.name for trace in figure.data] == [
        "&lt;b&gt;, training",
        "&lt;b&gt;, validation",
    ]
    assert list(figure.data[1].y) == [4.0, 2.5]


def test_facts_of_strangers_that_make_no_sense_are_left_out():
    assert loss_curves([trained("b", loss_curve=[5])]).curves == ()
    assert loss_curves([trained("b", training="x")]).curves == ()


def test_what_a_training_says_is_read_again():
    assert losses_of("no checkpoint kept; " + loss_words(1.25)) == (1.25, None)
    assert losses_of(loss_words(0.5, 0.75)) == (0.5, 0.75)
    assert losses_of("anything") == (None, None)


def test_a_training_is_drawn_while_it_runs_over_those_that_are_done():
    study = FakeStudy()
    study.records.append(trained("done"))
    bench = Workbench(study)
    panel = bench.panels.curves
    step = FineTuning(epochs=2)
    bench._session.events.emit(event("started", step, run="live"))
    for n, loss in enumerate((3.0, 2.0, 1.5), 1):
        words = loss_words(loss, 2.75 if n > 1 else None)
        bench._session.events.emit(
            event("progress", step, run="live", stage="train", done=n, total=9, detail=words)
        )
    panel._draw()
    live, done = panel.curves()
    assert (live.run, live.is_live, done.run) == ("live", True, "done")
    assert live.loss == ((1, 3.0), (2, 2.0), (3, 1.5))
    assert live.validation == ((2, 2.75),)
    panel.show(True)
    assert list(panel.place.figure.data[0].y) == [3.0, 2.0, 1.5]
    assert panel.place.figure.data[0].name.endswith("(running), training")
    bench._session.events.emit(event("cancelled", step, run="live"))
    panel._draw()
    assert [curve.run for curve in panel.curves()] == ["done"]
    assert panel.code() == "study.loss_curves(['done']).plot()"
    study.records.pop()
    panel._draw()
    assert panel.place.figure is None, "no figure is made that nobody sees"
