"""Tests of the tree of runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests.app.fake import record
from workbench.recipes import GPTQ, RTN, MagnitudePruning
from workbench.records import Metric, RunState
from workbench.views.figures.lineage import lineage_svg
from workbench.views.lineage import lineage

ACCURACY = Metric("accuracy")


def tree():
    return [
        record("dense", 4_000_000, 0.9),
        record("p", 4_000_000, 0.88, MagnitudePruning(0.3)),
        record("q", 1_000_000, 0.87, [MagnitudePruning(0.3), GPTQ(4)]),
        record("r", 900_000, 0.8, RTN(3)),
        record("f", None, None, RTN(2), state=RunState.FAILED),
    ]


def with_parents(records, **parents):
    return [replace(r, parent=parents.get(r.id)) for r in records]


def test_a_run_hangs_below_the_one_that_it_continues():
    view = lineage(with_parents(tree(), p="dense", q="p", r="dense"), ACCURACY)
    assert set(view.edges) == {("dense", "p"), ("p", "q"), ("dense", "r"), ("dense", "f")}
    depth = {node.run_id: node.depth for node in view.nodes}
    assert depth == {"dense": 0, "p": 1, "q": 2, "r": 1, "f": 1}
    order = [node.run_id for node in view.nodes]
    assert order.index("p") < order.index("q") < order.index("r")
    assert view.table.loc["q", "continues"] == "p"


def test_a_parent_that_was_deleted_is_replaced_by_the_base_model():
    view = lineage(with_parents(tree(), q="gone"), ACCURACY)
    assert ("dense", "q") in view.edges


@pytest.mark.parametrize(
    ("parent", "step"), [("p", "GPTQ 4-bit g128"), ("dense", "Magnitude 30% → GPTQ 4-bit g128")]
)
def test_a_node_says_what_it_adds_to_the_run_that_it_continues(parent, step):
    view = lineage(with_parents(tree(), p="dense", q=parent, r="dense"), ACCURACY)
    assert {node.run_id: node.step for node in view.nodes}["q"] == step


def test_a_study_without_runs_is_an_empty_tree():
    view = lineage([], ACCURACY)
    assert view.nodes == view.edges == ()
    assert len(view.plot().data) == 3


def test_the_figure_has_areas_by_bytes_and_rings_for_what_is_selected():
    view = lineage(tree(), ACCURACY)
    figure = view.plot(selected=("r",))
    measured = next(trace for trace in figure.data if trace.name == "measured")
    assert measured.y == (0, 1, 2, 3)  # a row for each
    size = dict(zip(measured.customdata, measured.marker.size, strict=True))
    assert math.isclose(size["q"] / size["dense"], math.sqrt(1 / 4))
    widths = dict(zip(measured.customdata, measured.marker.line.width, strict=True))
    assert widths["r"] > widths["q"]
    without = next(trace for trace in figure.data if trace.name == "without a result")
    assert list(without.customdata) == ["f"]


def test_a_saved_notebook_shows_the_tree_as_a_small_picture_with_its_texts_escaped():
    view = lineage(with_parents(tree(), p="dense", q="p", r="dense"), ACCURACY)
    nodes = tuple(replace(node, step=f"<b>{node.step}") for node in view.nodes)
    figure = replace(view, nodes=nodes).plot(selected=("r",))
    bundle = figure._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.plotly.v1+json", "image/svg+xml", "text/plain"}
    assert len(json.dumps(bundle)) < 30_000
    svg = bundle["image/svg+xml"]
    root = ElementTree.fromstring(svg)
    name = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f".//{name}circle")
    assert len(circles) == 4
    assert len({circle.get("fill") for circle in circles}) == 4
    assert [circle.get("stroke-width") for circle in circles] == ["1", "1", "1", "3"]
    assert float(circles[2].get("r")) == pytest.approx(float(circles[0].get("r")) / 2, abs=0.1)
    said = [text.text for text in root.findall(f".//{name}text")]
    assert "1.00 MB, 0.87" in said
    assert "failed" in said
    assert any(text.startswith("<b>GPTQ") for text in said)
    assert "<b>" not in svg


def test_an_empty_tree_is_drawn_too():
    root = ElementTree.fromstring(lineage_svg(ACCURACY, (), ()))
    assert "No runs yet" in [text.text for text in root.iter() if text.text]
