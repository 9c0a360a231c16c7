"""Tests of the live figure: its state is what was set, whatever its front ends answer."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from workbench.app.parts.live_figure import LiveFigure


@pytest.fixture
def figure():
    return LiveFigure(go.Figure([go.Scatter(x=[1, 2], y=[3, 4]), go.Scatter(x=[], y=[])]))


def answer(figure):
    """Send what plotly's front end sends after an update: all that differs from the first state."""
    traces = [{"uid": t.uid, "x": list(t.x), "y": list(t.y), "opacity": 1} for t in figure.data]
    figure._js2py_traceDeltas = {
        "trace_deltas": traces,
        "trace_edit_id": figure._last_trace_edit_id,
    }
    figure._js2py_layoutDelta = {
        "layout_delta": {"xaxis": {"range": [0, 9], "type": "linear"}},
        "layout_edit_id": figure._last_layout_edit_id,
    }


def test_a_page_that_is_loaded_again_is_sent_what_was_set(figure):
    with figure.batch_update():
        figure.data[1].update({"x": [5, 6], "y": [7, 8]}, overwrite=False)
        figure.layout.xaxis.range = [0, 9]
    answer(figure)
    state = figure.get_state()
    assert [(t["x"], t["y"]) for t in state["_widget_data"]] == [([1, 2], [3, 4]), ([5, 6], [7, 8])]
    assert list(state["_widget_layout"]["xaxis"]["range"]) == [0, 9]
    assert figure.data[1].to_plotly_json()["x"] == [5, 6]


def test_a_further_update_after_the_answer_is_in_the_state(figure):
    for value in (5, 9):
        with figure.batch_update():
            figure.data[0].update({"x": [value], "y": [value]}, overwrite=False)
        answer(figure)
    assert figure.get_state(["_widget_data"])["_widget_data"][0]["x"] == [9]
