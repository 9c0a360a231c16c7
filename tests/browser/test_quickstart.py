"""The quickstart notebook and its widget, as a person uses them in JupyterLab."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]


def widget(page):
    """Return the displayed workbench, scrolled into view."""
    found = page.locator(".jp-OutputArea-output:has(.jupyter-widgets)").last
    found.scroll_into_view_if_needed()
    return found


SOLID = 'path.point:not([style*="fill: none"])'
"""Measured points; those that are predicted are hollow."""


def points(page):
    return widget(page).locator(f".wb-frontier .scatterlayer .trace .points {SOLID}").count()


def rows(page):
    return widget(page).locator(".wb-explore .wb-table tbody tr").all_inner_texts()


def test_every_cell_ran_without_an_error(page):
    outputs = page.locator('.jp-OutputArea-output[data-mime-type*="stderr"]').all_inner_texts()
    assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0, outputs
    assert not page.locator("text=Traceback").count()


def test_the_plot_has_a_point_per_run(page):
    assert points(page) == len(rows(page)) >= 10  # those of the sweep, and what was fitted
    front = widget(page).locator(".wb-frontier .scatterlayer .trace path.js-line")
    assert front.count() >= 1
    names = widget(page).locator(".wb-frontier .legendtext").all_text_contents()
    assert {"RTN", "GPTQ", "AWQ", "Magnitude → GPTQ", "dense baseline"} <= set(names)


def test_the_plot_of_the_study_is_drawn_too(page):
    cells = page.locator(".jp-CodeCell", has=page.locator(".cm-content", has_text="study.plot()"))
    for cell in (cells.first, cells.nth(1)):
        cell.scroll_into_view_if_needed()
        drawn = cell.locator(f".jp-OutputArea-output.js-plotly-plot {SOLID}")
        drawn.first.wait_for(state="attached", timeout=30_000)
        assert drawn.count() >= 9
    everything = cell.locator(".jp-OutputArea-output.js-plotly-plot path.point")
    assert everything.count() > drawn.count()  # the second one shows what is predicted too


def test_the_saved_picture_is_hidden_while_the_widget_lives(page):
    picture = page.locator('div[class^="wb-picture-"]')
    assert picture.count() == 1
    assert not picture.is_visible()


def test_no_script_failed(page):
    assert page.errors == []


def test_the_saved_notebook_shows_its_plot_without_a_kernel(page, lab, browser, screenshots):
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(3000)
    path = lab.folder / "01-quickstart.ipynb"
    saved = json.loads(path.read_text())
    assert path.stat().st_size < 1_000_000
    outputs = [o for c in saved["cells"] for o in c.get("outputs", ())]
    pictures = [
        o for o in outputs if "wb-picture" in "".join(o.get("data", {}).get("text/html", ""))
    ]
    assert len(pictures) == 1
    html = "".join(pictures[0]["data"]["text/html"])
    assert "GPTQ 4-bit g32" in html
    other = browser.new_page(viewport={"width": 1000, "height": 900})
    other.set_content(f"<body style='background: white'>{html}")
    image = other.locator("img")
    assert image.bounding_box()["width"] > 300
    assert image.evaluate("img => img.complete && img.naturalWidth > 300")
    other.screenshot(path=str(screenshots / "without-kernel.png"))
    other.close()
