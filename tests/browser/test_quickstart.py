"""The quickstart notebook and its widget, as a person uses them in JupyterLab."""

from __future__ import annotations

import json
import re
import time

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]

RUN_MS = 600_000
"""A run takes seconds on a quiet machine, and minutes on a busy one."""


def widget(page):
    """Return the displayed workbench, scrolled into view."""
    found = page.locator(".jp-OutputArea-output:has(.jupyter-widgets)").last
    found.scroll_into_view_if_needed()
    return found


SOLID = 'path.point:not([style*="fill: none"])'
"""Measured points; those that are predicted are hollow."""


def points(page):
    return widget(page).locator(f".js-plotly-plot .scatterlayer .trace .points {SOLID}").count()


def rows(page):
    return widget(page).locator(".wb-table tbody tr").all_inner_texts()


def button(page, name):
    return widget(page).locator("button.jupyter-button", has_text=name)


def status(page):
    return widget(page).locator('span[role="status"]').first


def choose_method(page, name):
    widget(page).get_by_label("method").select_option(label=name)


def execute(page, code):
    """Run code in a new cell at the end and return the seconds until its output is there."""
    page.evaluate(
        """async code => {
            const app = window.jupyterapp;
            const notebook = app.shell.currentWidget.content;
            notebook.activeCellIndex = notebook.widgets.length - 1;
            await app.commands.execute('notebook:insert-cell-below');
            notebook.activeCell.model.sharedModel.setSource(code);
            app.commands.execute('notebook:run-cell');
        }""",
        code,
    )
    started = time.monotonic()
    last = page.locator(".jp-CodeCell").last.locator(".jp-OutputArea-output")
    last.first.wait_for(timeout=60_000)
    return time.monotonic() - started, last.first.inner_text()


def test_every_cell_ran_without_an_error(page):
    outputs = page.locator('.jp-OutputArea-output[data-mime-type*="stderr"]').all_inner_texts()
    assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0, outputs
    assert not page.locator("text=Traceback").count()


def test_the_plot_has_a_point_per_run(page):
    assert points(page) == len(rows(page)) >= 10  # those of the sweep, and what was fitted
    front = widget(page).locator(".js-plotly-plot .scatterlayer .trace path.js-line")
    assert front.count() >= 1
    names = widget(page).locator(".js-plotly-plot .legendtext").all_text_contents()
    assert {"RTN", "GPTQ", "AWQ", "Magnitude", "dense baseline"} <= set(names)


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


def test_a_click_on_run_makes_a_point_and_a_row(page, screenshots):
    before = points(page)
    choose_method(page, "RTN")
    code = widget(page).locator("code", has_text="study.run")
    assert code.inner_text() == "study.run(wb.RTN(4))"
    button(page, "Run").click()
    page.wait_for_function(
        "([n, solid]) => document.querySelectorAll("
        "`.jupyter-widgets .js-plotly-plot ${solid}`).length > n",
        arg=[before, SOLID],
        timeout=RUN_MS,
    )
    assert points(page) == before + 1
    page.wait_for_timeout(1500)
    assert any("RTN 4-bit g128" in row and "done" in row for row in rows(page))
    widget(page).screenshot(path=str(screenshots / "widget-after-run.png"))


def test_the_kernel_stays_free_during_a_run_and_cancel_stops_it(page, screenshots):
    before = points(page)
    choose_method(page, "AWQ")
    button(page, "Run").click()
    cancel = button(page, "Cancel")
    page.wait_for_function(
        """() => [...document.querySelectorAll('span[role=status]')].some(
            span => /AWQ 4-bit g128(:| has started)/.test(span.textContent))""",
        timeout=RUN_MS,
    )
    seconds, answer = execute(page, "1 + 1")
    assert answer.strip() == "2"
    assert seconds < 5
    widget(page).screenshot(path=str(screenshots / "widget-running.png"))
    cancel.click()
    page.wait_for_function(
        """() => [...document.querySelectorAll('span[role=status]')].some(
            span => /was cancelled/.test(span.textContent))""",
        timeout=30_000,
    )
    page.wait_for_timeout(1500)
    assert points(page) == before
    assert any("AWQ 4-bit g128" in row and "cancelled" in row for row in rows(page))
    assert cancel.is_disabled()


def test_an_impossible_setting_is_a_visible_banner(page, screenshots):
    choose_method(page, "Magnitude (MagnitudePruning)")
    widget(page).get_by_label(re.compile("^no n:")).uncheck()
    button(page, "Run").click()
    alert = widget(page).get_by_role("alert").first
    alert.wait_for(timeout=20_000)
    assert "n" in alert.inner_text()
    widget(page).screenshot(path=str(screenshots / "widget-banner.png"))


def test_the_bar_chooses_a_run(page):
    answer = widget(page).locator('span[role="status"]', has_text="passes")
    assert "95 % interval" in answer.inner_text()


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
    assert "RTN 4-bit g128" in html  # the run that was clicked came after the cell had run
    other = browser.new_page(viewport={"width": 1000, "height": 900})
    other.set_content(f"<body style='background: white'>{html}")
    image = other.locator("img")
    assert image.bounding_box()["width"] > 300
    assert image.evaluate("img => img.complete && img.naturalWidth > 300")
    other.screenshot(path=str(screenshots / "without-kernel.png"))
    other.close()
