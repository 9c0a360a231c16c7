"""The application as a person uses it: from the launcher's tile to the code that is kept."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from tests.browser.conftest import MODES, ROOT, Lab, wait_for_kernel
from workbench.study import Study

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1500)]

RUN_MS = 600_000
"""A run takes seconds on a quiet machine, and minutes on a busy one."""
SOLID = 'path.point:not([style*="fill: none"])'
"""Measured points; those that are predicted are hollow."""
CODE = """import time
import workbench as wb

bench = wb.Workbench(path="runs/study")
bench"""
TIMED = """started = time.perf_counter()
bench.panels.recipe.form.form.control("bits").set({bits})
print(time.perf_counter() - started)"""


@pytest.fixture(scope="module", params=MODES)
def lab(request, browser, tmp_path_factory):
    """JupyterLab on a folder with a copy of the recorded study."""
    folder = tmp_path_factory.mktemp("app")
    shutil.copytree(ROOT / "workbench" / "demo" / "study", folder / "runs" / "study")
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": [
            {
                "id": "one",
                "cell_type": "code",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": CODE,
            }
        ],
    }
    (folder / "study.ipynb").write_text(json.dumps(notebook))
    (folder / "bad.csv").write_bytes(b'text,label\n"never closed,x\n1,2,3\n')
    lab = Lab(folder, subshells=request.param)
    yield lab
    lab.close()


def new_page(browser, width=1440):
    page = browser.new_page(viewport={"width": width, "height": 1300})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    return page


@pytest.fixture(scope="module")
def page(lab, browser):
    """The copy of the recorded study, opened by path."""
    page = new_page(browser)
    lab.open(page, "/tree/study.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    wait_for_kernel(page)
    page.evaluate("() => { window.jupyterapp.shell.collapseLeft() }")
    run_all(page)
    yield page
    page.close()


def run_all(page):
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    points = page.locator(f".wb-app .js-plotly-plot .scatterlayer {SOLID}")
    points.first.wait_for(state="attached", timeout=120_000)


def shot(page, screenshots, name):
    page.locator(".wb-nav:visible").first.evaluate("tabs => tabs.scrollIntoView()")
    page.wait_for_timeout(800)
    page.screenshot(path=str(screenshots / f"app-{name}.png"))


def tab(page, name):
    page.locator(".wb-nav button", has_text=name).click()


def button(page, name):
    return page.locator(".wb-app button.jupyter-button:visible", has_text=name).first


def solid(page):
    return page.locator(f".wb-frontier .scatterlayer .trace {SOLID}").count()


def status(page):
    return page.locator('.wb-queue span[role="status"]')


def draft(page):
    """Return where the hollow point of the edited recipe is, in pixels."""
    place = page.locator(".wb-frontier .scatterlayer .trace").evaluate_all(
        """traces => traces.flatMap(trace => {
            const point = trace.querySelector('path.point[style*="rgb(204, 121, 167)"]');
            return point ? [point.getAttribute('transform')] : [];
        })"""
    )
    return place[0] if place else None


def execute(page, code):
    """Run code in a new cell at the end; return the seconds until its output, and the output."""
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


def within(seconds, most):
    """Hold a time to its ceiling where nothing else is running: in .ci/run.

    WORKBENCH_CEILINGS says how many times as long as a fast machine this one may take.
    """
    slack = float(os.environ.get("WORKBENCH_CEILINGS", "0"))
    if slack:
        assert seconds < most * slack


def choose_method(page, label):
    """Choose a method, and wait until the kernel has put its form in place."""
    page.locator(".wb-recipe").get_by_label("method").select_option(label=label)
    page.locator(".wb-step-name", has_text=f"1  {label}").wait_for(timeout=60_000)


def choose_group_size(page, size):
    page.locator(".wb-recipe").get_by_label("group size", exact=True).select_option(label=str(size))
    page.locator(".wb-step-name", has_text=f"g{size}").wait_for(timeout=60_000)


def wait_for_status(page, pattern, timeout=RUN_MS):
    page.wait_for_function(
        "pattern => new RegExp(pattern).test("
        "document.querySelector('.wb-queue span[role=status]')?.textContent ?? '')",
        arg=pattern,
        timeout=timeout,
    )


def test_a_slider_moves_the_predicted_point(page, screenshots):
    before = draft(page)
    assert before is not None
    slider = page.locator(".wb-recipe .noUi-handle").first
    slider.focus()
    slider.press("ArrowLeft")
    page.locator(".wb-step-name", has_text="GPTQ 3-bit g128").wait_for(timeout=20_000)
    page.wait_for_function(
        """before => [...document.querySelectorAll('.wb-frontier path.point')].some(point =>
            point.getAttribute('style').includes('rgb(204, 121, 167)')
            && point.getAttribute('transform') !== before)""",
        arg=before,
        timeout=20_000,
    )
    shot(page, screenshots, "frontier")
    page.locator(".wb-app").first.evaluate("app => app.scrollIntoView()")
    app = page.locator(".wb-app").first.bounding_box()
    page.screenshot(path=str(screenshots / "application.png"), clip=app | {"height": 1060})


@pytest.mark.slow
def test_the_predicted_point_is_sent_within_200_ms(page):
    seconds = [float(execute(page, TIMED.format(bits=bits))[1]) for bits in (5, 6, 2, 4)]
    within(min(seconds), 0.2)
    within(sorted(seconds)[-2], 0.2)  # one of them may have met something else


def test_points_are_reached_and_selected_by_keyboard(page, screenshots):
    figure = page.locator(".wb-frontier .wb-figure")
    figure.focus()
    assert "Arrow keys" in figure.get_attribute("aria-label")
    told = page.locator(".wb-frontier .wb-told")
    seen = []
    while not seen or "GPTQ 4-bit g128, perplexity" not in seen[-1]:
        page.keyboard.press("ArrowRight")
        seen.append(told.inner_text())
        assert len(seen) < 100, seen
    assert page.locator(".wb-frontier .wb-key-point").count() == 1
    page.locator(".wb-frontier .hoverlayer .hovertext").first.wait_for(timeout=10_000)
    shot(page, screenshots, "keys")
    page.keyboard.press("Enter")
    chosen = page.locator(".wb-explore .wb-table tr.wb-selected", has_text="GPTQ 4-bit g128")
    chosen.wait_for(timeout=10_000)
    page.keyboard.press("Enter")  # and away again
    chosen.wait_for(state="detached", timeout=10_000)


def test_selecting_in_the_table_selects_everywhere(page, screenshots):
    page.locator(".wb-explore .wb-table tbody tr[data-id]").nth(1).click()
    page.locator(".wb-explore .wb-table tbody tr[data-id]").nth(3).click(modifiers=["Control"])
    page.wait_for_function("() => document.querySelectorAll('.wb-selected').length >= 2")
    tab(page, "Compare")
    page.locator(".wb-split .wb-differs").first.wait_for(timeout=20_000)
    shot(page, screenshots, "compare")
    tab(page, "Lineage")
    page.locator(".wb-halves .js-plotly-plot path.point").first.wait_for(
        state="attached", timeout=30_000
    )
    assert page.locator(".wb-halves .wb-selected").count() == 2
    shot(page, screenshots, "lineage")
    tab(page, "Choose & keep")
    assert "pass" in page.locator(".wb-keep .wb-answer span[role=status]").first.inner_text()
    answers = page.locator(".wb-verdicts tbody tr[data-id]").all_inner_texts()
    assert len(answers) >= 12
    assert all(any(sign in answer for sign in "✓✕?○") for answer in answers)
    shot(page, screenshots, "keep")
    tab(page, "Code")
    page.wait_for_function(
        "() => document.querySelector('.wb-code textarea').value.includes('wb.GPTQ(4)')",
        timeout=20_000,
    )
    compile(page.locator(".wb-code textarea").input_value(), "session", "exec")
    shot(page, screenshots, "code")
    tab(page, "Frontier")
    page.wait_for_timeout(500)
    assert page.locator(".wb-frontier .main-svg").first.bounding_box()["height"] > 400


def test_the_form_fits_and_explains_when_it_is_asked(page, screenshots):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.locator(".wb-nav:visible").first.evaluate("tabs => tabs.scrollIntoView()")
    page.wait_for_timeout(800)
    run = button(page, "Run").bounding_box()
    assert run["y"] + run["height"] <= 900
    mark = page.get_by_label("What is bits?")
    help = page.locator(".wb-field .wb-help", has_text="bits").first
    assert not help.is_visible()
    mark.focus()
    mark.press("Enter")
    help.wait_for(timeout=5_000)
    shot(page, screenshots, "form")
    mark.click()
    help.wait_for(state="hidden", timeout=5_000)
    page.set_viewport_size({"width": 1440, "height": 1300})


def test_a_report_is_written_while_the_kernel_stays_free(page, lab, screenshots):
    tab(page, "Choose & keep")
    button(page, "Write report").click()
    seconds, answer = execute(page, "1 + 1")
    assert answer.strip() == "2"
    assert seconds < 5
    page.locator(".wb-answer-pass", has_text="report.html").wait_for(timeout=120_000)
    assert "base model" in (lab.folder / "report.html").read_text(encoding="utf-8")
    shot(page, screenshots, "report")
    tab(page, "Frontier")


def test_run_makes_a_solid_point_and_the_kernel_stays_free(page, screenshots):
    before = solid(page)
    choose_method(page, "RTN")
    choose_group_size(page, 64)
    button(page, "Run").click()
    wait_for_status(page, r"RTN 4-bit g64(:| has started)")
    seconds, answer = execute(page, "1 + 1")
    assert answer.strip() == "2"
    assert seconds < 5
    shot(page, screenshots, "running")
    wait_for_status(page, r"RTN 4-bit g64 done")
    page.wait_for_function(
        "([n, solid]) => document.querySelectorAll("
        "`.wb-frontier .scatterlayer .trace ${solid}`).length > n",
        arg=[before, SOLID],
        timeout=30_000,
    )
    page.locator(".wb-explore .wb-table", has_text="RTN 4-bit g64").wait_for(timeout=20_000)


def drawn(page):
    """Return what the plot in a page shows: the points of every trace by its name."""
    return page.evaluate(
        """() => {
            const plot = document.querySelector('.wb-frontier .js-plotly-plot');
            return Object.fromEntries(plot.data.filter(t => t.x?.length).map(
                t => [t.name, [...t.x].map((x, i) => [x, [...t.y][i]])]));
        }"""
    )


def in_the_journal(lab):
    """Return what the plot should show, read from the study's folder by this process."""
    with Study.open(lab.folder / "runs" / "study") as study:
        figure = study.plot()
    return {t.name: [list(point) for point in zip(t.x, t.y, strict=True)]
            for t in figure.data if t.x}  # fmt: skip


def test_after_a_reload_and_in_a_second_window_the_plot_is_what_the_journal_says(
    page, lab, browser, screenshots
):
    expected = in_the_journal(lab)
    assert len(expected["GPTQ"]) > 3
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(1500)
    second = new_page(browser)
    second.goto(lab.url.replace("01-quickstart.ipynb", "study.ipynb"), timeout=120_000)
    page.reload()
    for window in (page, second):
        solid_points = window.locator(f".wb-frontier .scatterlayer {SOLID}")
        solid_points.first.wait_for(state="attached", timeout=120_000)
        window.wait_for_timeout(2000)
        shown = drawn(window)
        assert {name: shown.get(name) for name in expected} == expected
    page.evaluate("() => { window.jupyterapp.shell.collapseLeft() }")
    shot(page, screenshots, "reloaded")
    assert second.errors == []
    second.close()
    page.locator(".wb-recipe .noUi-handle").first.wait_for(timeout=20_000)


def test_cancel_stops_a_run_and_it_has_no_point(page):
    before = solid(page)
    choose_group_size(page, 32)
    button(page, "Run").click()
    wait_for_status(page, r"RTN 4-bit g32: ")
    started = time.monotonic()
    page.locator(".wb-queue button", has_text="Cancel").first.click()
    wait_for_status(page, "was cancelled", timeout=30_000)
    within(time.monotonic() - started, 3)
    page.wait_for_timeout(1500)
    assert solid(page) == before
    row = page.locator(".wb-explore .wb-table tr", has_text="RTN 4-bit g32")
    assert "cancelled" in row.inner_text(timeout=20_000)


@pytest.mark.slow
def test_another_cell_answers_within_a_second_during_a_run(page):
    choose_method(page, "AWQ")
    button(page, "Run").click()
    wait_for_status(page, r"AWQ 4-bit g128( was done|:| has started)")
    choose_group_size(page, 32)
    button(page, "Run").click()
    wait_for_status(page, r"AWQ 4-bit g32:")
    within(min(execute(page, "1 + 1")[0] for _ in range(3)), 1)
    page.locator(".wb-queue button", has_text="Cancel all").click()
    wait_for_status(page, "was cancelled", timeout=30_000)


def test_an_impossible_setting_is_told_beside_it(page, screenshots):
    choose_method(page, "GPTQ")
    page.locator(".wb-recipe button", has_text="more settings").click()
    box = page.locator(".wb-recipe").get_by_label("block size", exact=True)
    box.fill("0")
    box.press("Enter")
    problem = page.locator(".wb-field .wb-problem[role=alert]:visible")
    problem.first.wait_for(timeout=20_000)
    assert "from 1 to 4096" in problem.first.inner_text()
    button(page, "Run").click()
    told = page.locator('.wb-recipe div[role="alert"]', has_text="block size")
    told.first.wait_for(timeout=20_000)
    shot(page, screenshots, "error")
    box.fill("128")
    box.press("Enter")
    page.wait_for_timeout(500)


def test_the_dark_theme_and_a_narrow_page(page, screenshots):
    theme = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
    page.evaluate(theme, "JupyterLab Dark")
    page.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'", timeout=30_000)
    ground = page.locator(".wb-card").first.evaluate(
        "card => getComputedStyle(card).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    ink = page.locator(".wb-card h3").first.evaluate(
        "text => getComputedStyle(text).color.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert max(ground) < 80
    assert min(ink) > 150
    shot(page, screenshots, "dark")
    page.evaluate(theme, "JupyterLab Light")
    page.set_viewport_size({"width": 1100, "height": 1300})
    page.wait_for_timeout(1000)
    wide = page.locator(".wb-app").first.bounding_box()
    plot = page.locator(".wb-frontier .main-svg").first.bounding_box()
    assert plot["x"] + plot["width"] <= wide["x"] + wide["width"] + 1
    caption = page.locator(".wb-caption .widget-html-content").first
    assert "Bars: 95 % interval" in caption.inner_text()
    assert caption.evaluate("it => it.scrollWidth <= it.clientWidth")
    assert caption.bounding_box()["x"] >= plot["x"] - 1
    shot(page, screenshots, "narrow")
    page.set_viewport_size({"width": 760, "height": 1300})
    page.wait_for_timeout(1000)
    recipe, plot = (
        page.locator(part).first.bounding_box() for part in (".wb-recipe", ".wb-frontier")
    )
    assert recipe["y"] > plot["y"] + plot["height"] - 1  # below, not beside
    page.set_viewport_size({"width": 1440, "height": 1300})


def test_after_a_restart_every_point_is_back_and_the_notebook_is_small(page, lab):
    before = solid(page)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    wait_for_kernel(page)
    run_all(page)
    page.wait_for_function(
        "([n, solid]) => document.querySelectorAll("
        "`.wb-frontier .scatterlayer .trace ${solid}`).length >= n",
        arg=[before, SOLID],
        timeout=60_000,
    )
    assert solid(page) == before
    path = lab.folder / "study.ipynb"
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(3000)
    assert path.stat().st_size < 1_000_000  # with more than ten runs
    saved = json.loads(path.read_text())
    outputs = [output for cell in saved["cells"] for output in cell.get("outputs", ())]
    shown = "".join("".join(o.get("data", {}).get("text/html", "")) for o in outputs)
    assert "data:image/svg+xml;base64," in shown
    assert "RTN 4-bit g64" in shown


def test_also_with_its_widget_state_the_saved_notebook_is_small(page, lab):
    state = page.evaluate(
        """async () => {
            const settings = window.jupyterapp;
            await settings.commands.execute('@jupyter-widgets/jupyterlab-manager:saveWidgetState');
            await settings.commands.execute('docmanager:save');
        }"""
    )
    page.wait_for_timeout(4000)
    saved = json.loads((lab.folder / "study.ipynb").read_text())
    assert state is None
    assert "widgets" in saved["metadata"]
    assert (lab.folder / "study.ipynb").stat().st_size < 1_000_000


def test_a_page_that_is_reloaded_has_its_points_again(page):
    before = solid(page)
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    wait_for_kernel(page)
    run_all(page)
    page.wait_for_timeout(1500)
    assert solid(page) == before


def test_no_script_failed(page):
    assert page.errors == []


def test_from_the_tile_to_the_first_measured_point(lab, browser, screenshots):
    page = new_page(browser)
    lab.open(page)
    tile = page.locator(".jp-LauncherCard", has_text="Compression Workbench").first
    tile.wait_for(timeout=60_000)
    started = time.monotonic()
    tile.click()
    page.locator(".wb-start").wait_for(timeout=120_000)
    page.evaluate("() => { window.jupyterapp.shell.collapseLeft() }")
    page.locator(".wb-start button", has_text="Start").click()
    points = page.locator(f".wb-frontier .scatterlayer {SOLID}")
    points.first.wait_for(state="attached", timeout=RUN_MS)
    within(time.monotonic() - started, 60)
    page.locator(".wb-queue button", has_text="Cancel all").click()  # the predictions
    page.locator(".wb-head", has_text="perplexity").wait_for(timeout=30_000)
    shot(page, screenshots, "first-point")

    tab(page, "Start")
    shot(page, screenshots, "empty")
    page.locator(".wb-start button", has_text="Labelled table").click()
    with page.expect_file_chooser() as chooser:
        page.locator(".wb-start button", has_text="Upload").click()
    chooser.value.set_files(str(lab.folder / "bad.csv"))
    problem = page.locator(".wb-start .wb-problem[role=alert]")
    problem.wait_for(timeout=30_000)
    assert "bad.csv" in problem.inner_text()
    assert "a quote that is never closed" in problem.inner_text()
    shot(page, screenshots, "bad-file")
    assert page.errors == []
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.sessionContext.shutdown() }")
    page.close()


def test_the_command_palette_has_an_entry(lab, browser):
    page = new_page(browser)
    lab.open(page)
    page.wait_for_function(
        "() => window.jupyterapp?.commands.hasCommand('compression-workbench:open')",
        timeout=60_000,
    )
    page.keyboard.press("Control+Shift+C")
    page.locator(".lm-CommandPalette-input, .jp-ModalCommandPalette input").first.fill(
        "Compression Workbench"
    )
    page.locator(".lm-CommandPalette-itemLabel", has_text="Compression Workbench").first.wait_for(
        timeout=20_000
    )
    page.close()
