"""Tests of the drawn trade-off: what is where, what is escaped, what can be opened offline."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from workbench.prediction.predict import Prediction
from workbench.recipes import AWQ, GPTQ, RTN, STEPS, MagnitudePruning, Mixed
from workbench.recipes.recipe import Recipe
from workbench.records import Measurement, Metric, RunRecord, RunState
from workbench.selection.compare import Axis, table, tradeoff_view
from workbench.views.figures import static_svg, tradeoff_figure, update_figure, write_html
from workbench.views.figures.layout import (
    Frame,
    families_of,
    footnote,
    predicted_details,
    style_of,
    titles,
)

PERPLEXITY = Metric("perplexity", higher_is_better=False)
ACCURACY = Metric("accuracy")
EVIL = "<img src=x onerror=alert(1)>"


def record(id, mb, value, recipe=(), *, metric="perplexity", model="tiny", stderr=0.5):
    return RunRecord(
        id,
        model,
        Recipe.of(recipe),
        RunState.DONE,
        measurements=(Measurement(metric, value, n=9, stderr=stderr),),
        size_bytes=int(mb * 1e6),
    )


RECORDS = [
    record("dense", 10, 50.0),
    record("rtn2", 2, 1e5, RTN(2)),
    record("gptq2", 2.5, 80.0, GPTQ(2)),
    record("gptq4", 4, 50.5, GPTQ(4)),
    record("awq4", 4.5, 51.0, AWQ(4)),
    record("both", 4.6, 58.0, [MagnitudePruning(0.5), GPTQ(4)]),
]
VIEW = tradeoff_view(RECORDS, PERPLEXITY, task="stdlib")


def test_every_method_has_a_colour_and_shape_of_its_own():
    families = families_of(VIEW)
    assert {step.title for step in STEPS.values()} <= set(families)
    styles = [style_of(family) for family in families]
    assert len(set(styles)) == len(styles)
    student, small = style_of("Distil"), style_of("Distil → GPTQ")
    assert small.symbol == style_of("GPTQ").symbol  # the last step, and what came before it
    assert small.edge == student.colour


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_every_point_is_in_its_family_at_its_place():
    found = traces(tradeoff_figure(VIEW))
    assert list(found["GPTQ"].customdata) == ["gptq2", "gptq4"]
    assert list(found["GPTQ"].x) == [2.5, 4.0]
    assert list(found["GPTQ"].y) == [80.0, 50.5]
    assert list(found["Magnitude → GPTQ"].customdata) == ["both"]
    assert list(found["dense baseline"].text) == ["tiny"]
    assert found["GPTQ"].error_y.array[1] == pytest.approx(0.98, abs=0.001)
    assert found["GPTQ"].error_y.arrayminus[1] == pytest.approx(0.98, abs=0.001)
    assert found["RTN"].error_y.array == (0,)  # an arrow has no bar


def test_families_differ_in_colour_and_in_shape():
    shown = [t for n, t in traces(tradeoff_figure(VIEW)).items() if n in ("GPTQ", "AWQ")]
    assert len({trace.marker.color for trace in shown}) == 2
    assert len({trace.marker.symbol[0] for trace in shown}) == 2
    assert all(trace.showlegend for trace in shown)


def test_off_scale_points_do_not_squash_the_plot():
    figure = tradeoff_figure(VIEW)
    low, high = figure.layout.yaxis.range
    assert low < 50
    assert 80 < high < 110
    rtn = traces(figure)["RTN"]
    assert rtn.marker.symbol == ("arrow-up",)
    assert 80 < rtn.y[0] < high
    assert "perplexity: 1e+05" in rtn.hovertext[0]
    assert "off scale" in rtn.hovertext[0]
    assert "off scale" in footnote(VIEW, Frame.of(VIEW))


def test_bad_accuracy_points_down():
    records = [
        record("dense", 10, 0.9, metric="accuracy", stderr=0.01),
        record("bad", 2, 0.02, RTN(2), metric="accuracy", stderr=0.01),
        record("good", 4, 0.89, RTN(4), metric="accuracy", stderr=0.01),
    ]
    figure = tradeoff_figure(tradeoff_view(records, ACCURACY))
    assert figure.layout.yaxis.range[0] > 0.8
    assert set(traces(figure)["RTN"].marker.symbol) == {"circle", "arrow-down"}
    assert "higher is better" in figure.layout.yaxis.title.text


def test_no_baseline_is_ever_off_scale():
    small = record("weak", 1, 400.0, model="weak")
    view = tradeoff_view([*RECORDS, small], PERPLEXITY)
    frame = Frame.of(view)
    assert not any(frame.is_off_scale(p) for p in view.points if p.is_baseline)
    assert sum(frame.is_off_scale(p) for p in view.points) == 1


def test_front_is_a_staircase_over_the_front():
    front = traces(tradeoff_figure(VIEW))["Pareto front"]
    edge = Frame.of(VIEW).edge
    assert list(front.x) == [2, 2.5, 2.5, 4, 4, 10, 10]
    assert list(front.y) == [edge, edge, 80, 80, 50.5, 50.5, 50]


def test_log_axis_is_labelled_with_whole_numbers():
    axis = tradeoff_figure(VIEW, log_x=True).layout.xaxis
    assert axis.type == "log"
    assert list(axis.tickvals) == [2, 5, 10]
    assert axis.range[0] < 0.31 < 0.99 < axis.range[1]


def test_title_names_metric_task_and_model():
    title, subtitle = titles(VIEW)
    assert title == "Perplexity against size"
    assert subtitle == "Task: stdlib · Model: tiny"


def test_an_empty_study_says_so():
    empty = tradeoff_view([], PERPLEXITY)
    assert "No measured runs yet" in [a.text for a in tradeoff_figure(empty).layout.annotations]
    assert "No measured runs yet" in static_svg(empty)


def test_a_single_run_is_drawn():
    view = tradeoff_view(RECORDS[:1], PERPLEXITY)
    assert list(traces(tradeoff_figure(view))["dense baseline"].y) == [50.0]
    ET.fromstring(static_svg(view))


def test_text_from_data_is_escaped_everywhere(tmp_path):
    records = [replace(r, model=EVIL) for r in RECORDS]
    view = tradeoff_view(records, replace(PERPLEXITY, name=EVIL), task=EVIL)
    named = replace(view, points=tuple(replace(p, label=EVIL, family=EVIL) for p in VIEW.points))
    for one in (view, named):
        text = tradeoff_figure(one).to_json()
        assert "<img" not in text
        assert "\\u003cimg" not in text
        svg = static_svg(one)
        assert "<img" not in svg
        ET.fromstring(svg)
    page = write_html(tradeoff_figure(named), tmp_path / "p.html", table=table(records, PERPLEXITY))
    assert "<img" not in re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.DOTALL)


def prediction(recipe, mb, value, kl, notes=()):
    interval = (value * 0.9, value * 1.2)
    return "tiny", Prediction(
        Recipe.of(recipe), int(mb * 1e6), kl, None, "perplexity", value, interval, 3, notes
    )


MIXED = Mixed([GPTQ(2), GPTQ(4)], {"a": 0, "b": 1, "c": 1})
PREDICTIONS = [
    prediction(MIXED, 3.0, 60.0, 0.15, ("interpolated",)),
    prediction(GPTQ(4), 4.0, 50.6, 0.01),  # was measured
    prediction(GPTQ(3), 3.5, 52.0, 0.05),
    prediction(RTN(2, group_size=32), 1.0, 95.0, 0.9),  # only "bad" is certain
    prediction(RTN(3), 2.2, 1e30, 5.0),
]
BOTH = tradeoff_view(RECORDS, PERPLEXITY, task="stdlib", predictions=PREDICTIONS)


def test_predictions_are_hollow_in_their_familys_colour_and_shape():
    found = traces(tradeoff_figure(BOTH))
    for family, measured in (("GPTQ", "GPTQ"), ("Mixed", "Mixed")):
        hollow, solid = found[f"{family}, predicted"], found[measured]
        assert hollow.marker.color == solid.marker.color
        assert hollow.marker.symbol.endswith("-open")
    assert found["GPTQ, predicted"].marker.symbol == found["GPTQ"].marker.symbol[0] + "-open"
    assert list(found["Mixed, predicted"].x) == [3.0]
    assert found["Mixed, predicted"].showlegend
    assert not found["GPTQ, predicted"].showlegend  # the solid ones are there
    assert found["predicted front"].line.dash != found["Pareto front"].line.dash
    assert list(found["predicted front"].x) == [3.0, 3.5, 3.5]
    assert list(found["predicted front"].y) == [60.0, 60.0, 52.0]
    assert "Hollow: predicted, not measured." in footnote(BOTH, Frame.of(BOTH))


def test_a_measured_recipe_has_no_predicted_point():
    assert [p.recipe for p in BOTH.predicted if p.recipe == Recipe.of(GPTQ(4))] == []
    assert list(traces(tradeoff_figure(BOTH))["GPTQ, predicted"].x) == [3.5]


def test_a_prediction_says_what_it_is():
    (text,) = traces(tradeoff_figure(BOTH))["Mixed, predicted"].hovertext
    assert max(map(len, text.split("<br>"))) < 50  # narrow enough to stand beside its point
    text = text.replace("<br>", " ")
    assert "predicted, not measured" in text
    assert "90 % interval 54 to 72" in text
    assert "3.00 MB" in text
    assert "interpolated" in text
    assert "2 of 3 layer groups: GPTQ 4-bit g128" in text
    long = replace(BOTH, predicted=(replace(BOTH.predicted[0], label="GPTQ → " * 40),))
    first = predicted_details(long, long.predicted[0])[0]
    assert len(first) <= 90
    assert first.endswith("GPTQ…")


def test_bad_predictions_move_no_axis():
    alone, both = Frame.of(VIEW), Frame.of(BOTH)
    assert (both.x, both.y) == (alone.x, alone.y)
    assert traces(tradeoff_figure(BOTH))["RTN, predicted"].x == ()
    better = tradeoff_view(
        RECORDS, PERPLEXITY, predictions=[prediction(GPTQ(2, group_size=8), 1.2, 60.0, 0.2)]
    )
    assert Frame.of(better).x[0] < 1.2  # a trusted one is shown


def test_predictions_come_and_go_in_a_live_figure():
    widget = go.FigureWidget(tradeoff_figure(VIEW))
    for view in (BOTH, VIEW):
        update_figure(widget, view)
        fresh = tradeoff_figure(view)
        for one, other in zip(widget.data, fresh.data, strict=True):
            assert one.to_plotly_json() | {"uid": None} == other.to_plotly_json() | {"uid": None}


def test_the_picture_has_hollow_markers_too():
    svg = static_svg(BOTH)
    root = ET.fromstring(svg)
    tips = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sum("predicted, not measured" in tip for tip in tips) == 2
    assert ">predicted<" in svg
    assert svg.count('fill="none" stroke="#') > static_svg(VIEW).count('fill="none" stroke="#')
    assert ">predicted<" not in static_svg(VIEW)


def test_only_sizes_are_predicted():
    axis = Axis("latency", "Latency (ms)", "ms", "perplexity")
    view = tradeoff_view(RECORDS, PERPLEXITY, axis=axis, predictions=PREDICTIONS)
    assert view.predicted == ()


def test_static_svg_is_small_and_needs_nothing():
    svg = static_svg(VIEW)
    root = ET.fromstring(svg)
    assert len(svg) < 20_000
    assert "href" not in svg
    assert "<script" not in svg
    tips = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(tips) == 1 + len(RECORDS)
    assert any("perplexity: 1e+05" in tip for tip in tips)


def test_static_svg_points_are_inside_the_picture():
    svg = static_svg(VIEW, log_x=True)
    for x, y in re.findall(r"([\d.-]+),([\d.-]+)", svg):
        assert 0 <= float(x) <= 760
        assert 0 <= float(y) <= 440


def test_live_figure_is_updated_in_place():
    widget = go.FigureWidget(tradeoff_figure(tradeoff_view(RECORDS[:2], PERPLEXITY)))
    before = [id(trace) for trace in widget.data]
    update_figure(widget, VIEW, log_x=True)
    assert [id(trace) for trace in widget.data][: len(before)] == before  # chains come behind
    fresh = tradeoff_figure(VIEW, log_x=True)
    for one, other in zip(widget.data, fresh.data, strict=True):
        assert one.to_plotly_json() | {"uid": None} == other.to_plotly_json() | {"uid": None}
    assert widget.layout.xaxis.type == "log"
    assert widget.layout.yaxis.range == fresh.layout.yaxis.range


def test_a_note_that_no_longer_holds_is_taken_away():
    widget = go.FigureWidget(tradeoff_figure(tradeoff_view([], PERPLEXITY)))
    assert [a.text for a in widget.layout.annotations] == [" ", "No measured runs yet"]
    update_figure(widget, VIEW)
    assert [a.text for a in widget.layout.annotations] == [
        "Bars: 95 % interval. Arrows: off scale.",
        " ",
    ]


def test_live_figure_takes_a_family_it_never_saw():
    widget = go.FigureWidget(tradeoff_figure(VIEW))
    other = replace(VIEW, points=(*VIEW.points, replace(VIEW.points[-1], family="New")))
    update_figure(widget, other)
    assert traces(widget)["New"].x == (4.6,)


def test_output_in_a_notebook_is_small_and_has_a_picture():
    from IPython.core.formatters import DisplayFormatter

    data, _ = DisplayFormatter().format(tradeoff_figure(VIEW))
    assert set(data) >= {"application/vnd.plotly.v1+json", "image/svg+xml", "text/plain"}
    assert data["image/svg+xml"] == static_svg(VIEW)
    assert "text/html" not in data
    assert len(json.dumps(data)) < 50_000


def test_page_opens_without_a_network(tmp_path):
    path = write_html(
        tradeoff_figure(VIEW), tmp_path / "sub" / "plot.html", table=table(RECORDS, PERPLEXITY)
    )
    text = path.read_text()
    assert "<script src" not in text
    assert "Plotly.newPlot" in text
    assert "GPTQ 4-bit g128" in text
    assert [p.name for p in path.parent.iterdir()] == ["plot.html"]


def test_the_footnote_is_wrapped_before_it_is_cut_off():
    view = replace(BOTH, n_unmeasured=3, points=VIEW.points)
    whole = footnote(view, Frame.of(view))
    assert len(whole) > 100
    (text,) = [a.text for a in tradeoff_figure(view).layout.annotations if "Bars" in a.text]
    assert max(map(len, text.split("<br>"))) <= 80
    assert text.replace("<br>", " ") == whole
    assert "see the table." in static_svg(view)
    assert whole not in static_svg(view)
