"""Tests of costs, routing, trust and planning in the application, without a browser or a model."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

import workbench as wb
from tests.app.fake import FakeStudy, record
from tests.classified import classifier
from workbench.app.panels.choose import requirements_code
from workbench.app.workbench import CODE, EXPLORE, KEEP, LINEAGE, PLAN, TRUST, Workbench
from workbench.recipes import RTN
from workbench.records import Measurement
from workbench.selection.cascades import SIGNALS, Tier, cascade, cascade_data
from workbench.selection.trust import Changed, Mistake, Slice, TrustView, reliability
from workbench.tasks.output import Output


class Classifying(FakeStudy):
    """A study of a classification task."""

    output = Output.LABELS


@pytest.fixture
def study():
    return Classifying()


@pytest.fixture
def bench(study):
    return Workbench(study)


@pytest.fixture
def asked(bench, monkeypatch):
    """What the other process is asked: (what, answered, failed, progress, arguments) each."""
    found = []
    monkeypatch.setattr(bench._session.inspector, "ask", lambda *a, **k: found.append((*a, k)))
    monkeypatch.setattr(bench._session.inspector, "stop", lambda told="": found.append(told))
    return found


def timed(study, **milliseconds):
    """Give runs a measured latency."""
    study.records = [
        replace(
            r,
            measurements=(*r.measurements, Measurement("latency_ms", milliseconds[r.id], "ms", 7)),
        )
        if r.id in milliseconds
        else r
        for r in study.records
    ]


def until(is_true, seconds=60):
    for _ in range(int(seconds * 20)):
        if is_true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come true")


# Costs


def test_costs_are_of_the_users_own_prices(study, bench):
    panel = bench.panels.cost
    assert "No price is built in" in panel.about.value
    assert panel.table.html == ""
    assert all(not c.value for n, c in panel.form.controls.items() if n.endswith("usd"))
    panel.form.controls["price_per_hour_usd"].value = 3.6
    assert "No run has measured times" in panel.about.value
    timed(study, dense=20.0, a=10.0)
    bench.refresh()
    panel.form.controls["utilisation"].value = 1.0
    panel.form.controls["queries_per_month"].value = 1e6
    panel.form.controls["api_per_1k_usd"].value = 0.05
    table = panel.table.html
    assert "0.01" in table  # 10 ms at 3.6 dollars an hour, 1,000 times
    assert "20.00" in table  # dollars a month of the base model
    assert "the service" in table
    assert "50.00" in table  # dollars a month of the service
    assert "tiny (dense)" in table
    prices = "wb.CostModel(price_per_hour_usd=3.6, utilisation=1.0, queries_per_month=1000000.0"
    assert panel.code().startswith(f"study.costs({prices}")
    assert eval(panel.code()[12:-1], {"wb": wb}) == bench._session.prices.value
    bench.nav.value = CODE
    assert bench.panels.code.text.value.count("study.costs(") == 1  # not one per change
    panel.form.controls["price_per_hour_usd"].value = None
    assert bench._session.prices.value is None
    assert "study.costs" not in bench.panels.code.code()


def test_every_price_has_its_help_and_classifiers_are_asked_for_no_tokens(bench):
    form = bench.panels.cost.form
    assert "new_tokens" not in form.controls
    assert "new_tokens" in Workbench(FakeStudy()).panels.cost.form.controls
    for control in form.controls.values():
        assert getattr(control, "input", control).description
        assert len(getattr(control, "input", control).tooltip) > 20
    assert "Empty: " in form.controls["api_per_1k_usd"].input.tooltip


def test_a_limit_of_money_needs_prices_and_decides(study, bench):
    panel = bench.panels.choose
    assert panel.limits.cost_per_1k.input.disabled
    timed(study, dense=20.0, a=10.0)
    controls = bench.panels.cost.form.controls
    controls["price_per_hour_usd"].value, controls["utilisation"].value = 3.6, 1.0
    assert not panel.limits.cost_per_1k.input.disabled
    panel.bar.value = 0.9
    panel.limits.cost_per_1k.value = 0.015
    assert "✓ passes" in panel.verdicts.html
    panel.limits.cost_per_1k.value = 0.005
    assert "✓" not in panel.verdicts.html
    asked = eval(requirements_code(panel.requirements()), {"wb": wb})
    assert asked == wb.Requirements(**panel.requirements())
    controls["utilisation"].value = 0.5
    assert eval(requirements_code(panel.requirements()), {"wb": wb}).cost.utilisation == 0.5


def test_what_has_no_times_is_measured_with_progress_and_can_be_stopped(study, bench, asked):
    bench.nav.value = KEEP
    panel = bench.panels.cost
    timed(study, dense=20.0)
    bench.refresh()
    assert "1 finished run has no measured times" in panel.missing.value
    panel.measure.click()
    what, answered, _, progress, arguments = asked[0]
    assert (what, arguments) == ("measure", {"runs": ["a"]})
    progress({"stage": "measure", "done": 30, "total": 100, "detail": "GPTQ <4>"})
    assert "measuring 30% GPTQ &lt;4&gt;" in panel._measuring.status.value
    assert panel.measure.disabled
    panel._measuring.stop.click()
    assert "Stop was pressed under Measure what is missing" in asked[1]
    assert not panel.measure.disabled
    answered({"count": 1, "warnings": []})  # was stopped
    assert panel.notice.text == ""
    panel.measure.click()
    timed(study, a=10.0)
    asked[2][1]({"count": 1, "warnings": []})
    assert "Measured 1 run." in panel._measuring.status.value
    assert "Every finished run was measured" in panel.missing.value
    panel.measure.click()
    assert "measured already" in panel.notice.text


def test_the_script_measures_before_it_writes_what_follows_from_times(bench):
    history = bench._session.history
    for line in ("study.measure('a')", "study.cascade(['a']).router().save('r')"):
        history.note(line)
    history.note("study.measure('a')")  # again
    script = bench.panels.code.code()
    assert script.count("study.measure('a')") == 1
    assert script.index("study.measure('a')") < script.index("study.cascade(")


@pytest.mark.parametrize("end", ["stop", "fail"])
def test_what_was_measured_before_the_end_is_shown_and_in_the_script(study, bench, asked, end):
    bench.nav.value = KEEP
    panel = bench.panels.cost
    panel.measure.click()
    timed(study, dense=20.0)
    if end == "stop":
        panel._measuring.stop.click()
    else:
        asked[0][2]("out of memory")
    assert "1 finished run has no measured times" in panel.missing.value
    script = bench.panels.code.code()
    assert "study.measure('dense')" in script
    assert "study.measure('a')" not in script


# Routing


def found_cascade(times=()):
    hard = np.random.default_rng(9).random(300) < 0.3
    tiers = [
        Tier(name, cost, classifier(300, 4.0, seed=seed, hard=hard if seed == 0 else None),
             classifier(300, 4.0, seed=seed + 9, hard=hard if seed == 0 else None), cost, times)
        for seed, (name, cost) in enumerate((("<small>", 1.0), ("large", 10.0)))
    ]  # fmt: skip
    return cascade(tiers, SIGNALS["margin"], accuracy=0.98)


def answer(found):
    return {"found": cascade_data(found), "unit": "MB", "words": "the <words>"}


def test_a_cascade_from_choosing_tiers_to_what_comes_of_it(bench, asked):
    panel = bench.panels.routing
    bench.nav.value = KEEP
    bench.panels.deciding.nav.value = 2
    assert panel.go.disabled
    panel.runs.value = ("a", "dense")
    assert "GPTQ 4-bit g128 →" in panel.order.value
    panel.signal.value, panel.accuracy.value = "margin", 0.98
    panel.go.click()
    what, answered, failed, _, arguments = asked[0]
    wanted = {"runs": ["a", "dense"], "signal": "margin", "accuracy": 0.98, "cost": "size"}
    assert (what, arguments) == ("cascade", wanted)  # the smallest is asked first
    failed("no probabilities")
    assert 'role="alert">no probabilities' in panel._question.status.value
    panel.go.click()
    found = found_cascade(times=(2.0,) * 50)
    asked[1][1](answer(found))
    assert "the &lt;words&gt;" in panel.answer.value
    assert "&lt;small&gt; answers where its margin is at least" in panel.answer.value
    assert "&lt;small&gt; alone" in panel.table.html
    assert "too few" in panel.table.html  # for a 99th percentile
    assert panel.place.figure is not None
    code = "study.cascade(['a', 'dense'], signal='margin', accuracy=0.98, cost='size')"
    assert panel.code() == code
    assert f"cascade = {code}" in bench.panels.code.code()
    assert bench.panels.report.with_cascade.value  # offered to the report, and in it
    assert f"cascade={code}" in bench.panels.report.code()
    assert answered is not None


def test_latencies_that_were_not_kept_are_not_measured(bench, asked):
    panel = bench.panels.routing
    panel.runs.value = ("a", "dense")
    panel.go.click()
    asked[0][1](answer(found_cascade()))
    assert panel.table.html.count("not measured") == 9


def test_a_new_study_routes_by_size_for_nothing_was_timed_yet():
    study = Classifying()
    records, study.records = study.records, []
    bench = Workbench(study)
    study.records = records
    bench.nav.value = KEEP
    bench.refresh()
    cost = bench.panels.routing.cost
    assert cost.value == "size"
    timed(study, dense=20.0, a=10.0)
    bench.refresh()
    assert cost.value == "latency"
    cost.value = "size"
    bench.refresh()
    bench.panels.cost.form.controls["price_per_hour_usd"].value = 2.0
    assert cost.value == "size"  # it was chosen


def test_dollars_are_a_cost_once_there_are_prices(bench, asked):
    panel = bench.panels.routing
    assert [value for _, value in panel.cost.options] == ["size", "latency"]
    bench.panels.cost.form.controls["price_per_hour_usd"].value = 2.0
    panel.cost.value = "dollars"
    panel.runs.value = ("a", "dense")
    panel.go.click()
    assert asked[0][-1]["cost"]["price_per_hour_usd"] == 2.0
    asked[0][1](answer(found_cascade()))
    assert "cost=wb.CostModel(price_per_hour_usd=2.0)" in panel.code()


def test_a_router_is_not_written_over_something_without_asking(bench, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = bench.panels.routing.router
    assert panel.write.disabled
    cascade_asked = {"runs": ["a", "dense"], "signal": "margin", "accuracy": 1.0, "cost": "size"}
    bench._session.cascade.set(cascade_asked)
    panel.path.value = "out/r"
    panel.write.click()
    what, answered, _, _, arguments = asked.pop()
    assert what == "router"
    assert arguments == {"path": str(tmp_path / "out/r"), "overwrite": False, **cascade_asked}
    answered(str(tmp_path / "out/r"))
    assert "wb.Router.load(" in panel.answer.value
    assert ".router().save('out/r', overwrite=True)" in bench.panels.code.code()
    lines = panel.loading("x").splitlines()
    assert len(lines) == 3
    compile("\n".join(lines), "loading", "exec")
    (tmp_path / "out" / "r").mkdir(parents=True)
    (tmp_path / "out" / "r" / "router.json").touch()
    panel.write.click()
    assert asked == []
    assert "is there already" in panel.notice.text
    panel.path.value = "out/r "  # another one would have to be asked for again
    assert panel.write.description == "Write router"
    assert ".save('out/r', overwrite=True)" in panel.code()
    panel.write.click()
    assert asked == []
    panel.write.click()
    assert asked.pop()[-1]["overwrite"] is True


def test_tasks_that_cannot_be_routed_say_so():
    panel = Workbench(FakeStudy()).panels.routing
    panel.runs.value = ("a", "dense")
    assert panel.go.disabled
    assert "language modeling" in panel.answer.value


# Trust


def trust_view():
    sure = np.linspace(0.4, 1.0, 60)
    right = np.arange(60) % 3 != 0
    return TrustView(
        words="all", before=reliability(sure, right), after=reliability(sure * 0.8, right),
        temperature=1.7, threshold=0.9, wrong_rate=0.05, wrong_interval=(0.02, 0.09),
        flip_rate=0.1, flip_interval=(0.06, 0.15), lost=5, gained=1,
        mistakes=(Mistake("<b>lost</b> card", "lost", "stolen", 0.97),),
        changed=(Changed("top up", "x<y", "x<y", "z", "lost"),),
        slices=(Slice("length", "long", 40, 0.9, 0.6, 1e-5, 1e-4),
                Slice("label", "a", 20, 0.9, 0.9, 1.0, 1.0)),
    )  # fmt: skip


def test_trust_is_asked_once_per_run_and_shown_in_views(bench, asked):
    panel = bench.panels.trust
    bench.nav.value = TRUST
    panel.run.value = "a"
    panel.go.click()
    what, answered, _, progress, arguments = asked[0]
    assert (what, arguments) == ("trust", {"run": "a", "threshold": 0.9})
    progress({"stage": "evaluate", "done": 10, "total": 50, "detail": "validation"})
    assert "evaluating 10 of 50 validation" in panel._question.status.value
    answered(trust_view().to_dict())
    assert "temperature 1.70" in panel.summary.value
    assert "too sure of itself" in panel.summary.value
    assert panel.place.figure is not None
    panel.view.value = "Sure mistakes"
    assert "&lt;b&gt;lost&lt;/b&gt; card" in panel.table.html
    assert panel.place.figure is None
    panel.view.value = "Flips"
    assert "▼ lost" in panel.table.html
    panel.view.value = "Slices"
    assert panel.table.html.index("long") < panel.table.html.index(">a<")
    assert "Compression surely hurts length “long” (-30.0%)" in panel.summary.value
    assert panel.go.disabled  # it is known
    assert "trust = study.trust('a')" in bench.panels.code.code()
    panel.run.value = "dense"
    assert "press Show" in panel.summary.value
    panel.run.value = "a"
    assert "Compression surely hurts" in panel.summary.value
    assert len(asked) == 1


def test_the_code_of_trust_is_of_what_was_asked_whatever_is_chosen_meanwhile(bench, asked):
    panel = bench.panels.trust
    panel.run.value = "a"
    panel.go.click()
    panel.run.value = "dense"
    asked[0][1](trust_view().to_dict())
    script = bench.panels.code.code()
    compile(script, "script", "exec")
    assert "trust = study.trust('a')" in script


def test_consistency_takes_own_wordings_and_refuses_those_without_a_place(bench, asked):
    panel = bench.panels.trust
    panel.run.value, panel.view.value = "a", "Consistency"
    own = panel.consistency
    own.templates.value = "no place"
    own.go.click()
    assert "has no {text}" in own.notice.text
    own.templates.value = "Dear team, {text}\n\n"
    own.go.click()
    what, answered, *_, arguments = asked[0]
    assert (what, arguments) == ("consistency", {"run": "a", "templates": ["Dear team, {text}"]})
    row = {"perturbation": "<typos>", "same": 0.9, "same_low": 0.8, "same_high": 0.95,
           "accuracy": 0.7, "change": -0.02, "change_low": -0.05, "change_high": 0.01}  # fmt: skip
    answered([row])
    assert "&lt;typos&gt;" in own.table.html
    assert "-5.0% to +1.0%" in own.table.html
    assert "{**PERTURBATIONS, 'Dear team, {text}': 'Dear team, {text}'}" in (
        bench.panels.code.code()
    )


def test_multiple_choice_of_the_harness_can_be_trusted_and_routed(study):
    study.output = Output.CHOICES
    bench = Workbench(study)
    assert len(bench.panels.trust.widget.children) == 2
    bench.panels.routing.runs.value = ("a", "dense")
    assert not bench.panels.routing.go.disabled
    assert [value for _, value in bench.panels.routing.cost.options] == ["size"]


def test_other_tasks_are_told_what_applies_to_them():
    panel = Workbench(FakeStudy()).panels.trust
    (only,) = panel.widget.children
    assert "language modeling" in only.value
    assert "Flips" in only.value


# Planning


def test_planning_needs_no_study(monkeypatch):
    bench = Workbench()
    bench.nav.value = PLAN
    panel = bench.plan
    assert bench.nav.value == PLAN
    panel.go.click()
    assert "No model is chosen" in panel.notice.text
    panel.models.value = ("llama-3.1-8b",)
    panel.devices.value = ("laptop 16 GB",)
    panel.device_form.name.value = "my <card>"
    panel.device_form.add.click()
    assert "A device needs a name" in panel.device_form.notice.text
    panel.device_form.memory_gb.value = panel.device_form.bandwidth_gb.value = 100
    panel.device_form.add.click()
    assert panel.devices.value == ("laptop 16 GB", "my <card>")
    panel.precisions.value = ("16-bit", "4-bit")
    panel.go.click()
    until(lambda: panel.table.html)
    assert "my &lt;card&gt;" in panel.table.html
    assert panel.table.html.count("✕ no") == 1  # at 16 bits on the laptop
    assert "Estimated, not measured" in panel.answer.value
    until(lambda: panel.place.figure is not None)
    scope = {"wb": wb}
    assert len(eval(panel.code(), scope).rows) == 4
    bench.nav.value = "start"
    assert panel.place.figure is None


def test_the_code_of_a_plan_has_the_very_device_that_was_entered():
    panel = Workbench().plan
    panel.models.value = ("llama-3.1-8b",)
    form = panel.device_form
    form.name.value = "80 GiB"
    form.memory_gb.value, form.bandwidth_gb.value = 85.89934592, 2039.123456
    form.add.click()
    panel.go.click()
    until(lambda: panel.table.html)
    entered = panel._own_devices["80 GiB"]
    assert {row.device for row in eval(panel.code(), {"wb": wb}).rows} == {entered}


def test_the_studys_own_models_are_planned_where_they_can_be_read(study, bench):
    assert ("tiny (of this study)", "tiny") not in bench.plan.models.options  # a live one
    about = study.describe()
    about["models"]["tiny"] |= {"kind": "folder", "ref": "/models/tiny"}
    study = Classifying()
    study.describe = lambda: about
    again = Workbench(study)
    assert again.plan.models.options[0] == ("tiny (of this study)", "/models/tiny")
    assert again.plan.models.value == ("/models/tiny",)


# The whole


def test_at_most_three_figures_live_at_once(bench, asked):
    bench.panels.routing.runs.value = ("a", "dense")
    bench.panels.routing.go.click()
    asked[0][1](answer(found_cascade()))
    bench.panels.trust.run.value = "a"
    bench.panels.trust.go.click()
    asked[1][1](trust_view().to_dict())
    bench.panels.deciding.nav.value = 2
    places = {
        LINEAGE: bench.panels.lineage.place,
        TRUST: bench.panels.trust.place,
        KEEP: bench.panels.routing.place,
    }
    for name in (LINEAGE, TRUST, KEEP, EXPLORE, LINEAGE):
        bench.nav.value = name
        living = [other for other, place in places.items() if place.figure is not None]
        assert living == ([name] if name in places else [])
    bench.nav.value = KEEP
    bench.panels.deciding.nav.value = 0
    assert places[KEEP].figure is None


def test_a_run_that_ends_is_offered_everywhere_and_takes_nothing_away(study, bench, asked):
    bench.nav.value = TRUST
    trust, routing = bench.panels.trust, bench.panels.routing
    trust.run.value = "a"
    trust.go.click()
    asked[0][1](trust_view().to_dict())
    figure = trust.place.figure
    routing.runs.value = ("a", "dense")
    study.records.append(record("b", 500_000, 0.85, RTN(4)))
    bench.refresh()
    assert trust.run.value == "a"
    assert trust.place.figure is figure
    bench.nav.value = KEEP
    assert set(routing.runs.value) == {"a", "dense"}
    assert [run for _, run in routing.runs.options] == ["b", "a", "dense"]  # smallest first


def test_a_search_runs_beside_the_kernel_and_shows_the_proof(bench, study, monkeypatch):
    from workbench.study.searching import SearchResult, Trial

    asked = []

    def search(wanted, **options):
        asked.append((wanted, options["budget_minutes"], options["in_worker"]))
        options["on_progress"](wb.Progress("search", 60, 300, "trial 1: <GPTQ>"))
        told.append(panel.status.value)
        trial = Trial("a", "<GPTQ>", 990_000, 0.9, 0.7, wb.RunState.DONE, 3.0)
        return SearchResult(study.choose(wanted), (trial,), "exhausted", 61.0)

    monkeypatch.setattr(study, "search", search, raising=False)
    panel, told = bench.panels.search, []
    panel.minutes.value = 5
    panel.go.click()
    panel._thread.join(10)
    assert asked == [(wb.Requirements(0.97), 5, True)]
    assert "&lt;GPTQ&gt;" in told[0]
    assert "4.0 minutes left" in told[0]
    assert "Nothing that is 1% smaller" in panel.status.value
    assert "&lt;GPTQ&gt;" in panel.trials.html
    assert not panel.go.disabled
    assert panel.code() == "study.search(wb.Requirements(accuracy=0.97), budget_minutes=5)"
    panel.stop.click()
    assert study.cancelled == [False]


def test_a_search_that_fails_says_why_beside_its_button(bench, study, monkeypatch):
    def refuse(*_, **__):
        raise wb.StudyError("The folder cannot be written to.")

    monkeypatch.setattr(study, "search", refuse, raising=False)
    panel = bench.panels.search
    panel.go.click()
    panel._thread.join(10)
    assert panel.notice.text == "The folder cannot be written to."
    assert (panel.status.value, panel.go.disabled) == ("", False)
