"""Runs are the user's: the list of studies, the sorted table, names, and what comes next."""

from __future__ import annotations

import json
import re

import pytest

from tests.browser.conftest import MODES, Lab, wait_for_kernel
from tests.browser.test_app import new_page, shot, tab
from tests.toy import toy_study
from workbench import Study
from workbench.recipes import RTN

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=MODES)
def lab(request, browser, tmp_path_factory):
    """JupyterLab on a folder with a finished study, and a notebook at its start screen."""
    folder = tmp_path_factory.mktemp("runs")
    with toy_study(folder / "runs" / "toy") as study:
        study.sweep([RTN(bits, group_size=8) for bits in (8, 4, 2)])
    cell = {"id": "one", "cell_type": "code", "metadata": {}, "execution_count": None,
            "outputs": [], "source": "import workbench as wb\nwb.Workbench()"}  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": [cell]}
    (folder / "own.ipynb").write_text(json.dumps(notebook))
    lab = Lab(folder, subshells=request.param)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def page(lab, browser):
    """The study, opened by one click in the list of the start screen."""
    page = new_page(browser)
    lab.open(page, "/tree/own.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    wait_for_kernel(page)
    page.evaluate("() => { window.jupyterapp.shell.collapseLeft() }")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.locator(".wb-start").wait_for(timeout=120_000)
    row = page.locator(".wb-start .wb-rows tr", has_text="runs/toy")
    row.wait_for(timeout=60_000)
    assert "tiny" in row.inner_text()
    row.click()
    page.locator(".wb-explore .wb-table tbody tr").nth(3).wait_for(timeout=60_000)
    yield page
    page.close()


def press(page, name):
    """Press the button with this very name, whatever its icon."""
    named = page.locator(".wb-app button:visible").filter(has_text=re.compile(rf"^\s*{name}\s*$"))
    named.last.click()  # the tab of the same name is before it


def cells(page, column):
    rows = page.locator(".wb-explore .wb-table tbody tr")
    return [rows.nth(i).locator("td").nth(column).inner_text() for i in range(rows.count())]


def test_the_table_is_sorted_by_mouse_and_keyboard(page, screenshots):
    head = page.locator(".wb-explore .wb-sort", has_text="size (MB)")
    head.click()
    page.wait_for_selector('.wb-explore th[aria-sort="ascending"]')
    column = page.locator(".wb-explore th").all_inner_texts().index("size (MB) ▲")
    sizes = [float(cell) for cell in cells(page, column)]
    assert sizes == sorted(sizes)
    page.keyboard.press("Enter")  # the focus stayed on the head
    page.wait_for_selector('.wb-explore th[aria-sort="descending"]')
    assert [float(cell) for cell in cells(page, column)] == sorted(sizes, reverse=True)
    shot(page, screenshots, "runs-sorted")


def test_a_run_gets_a_name_and_a_star_that_other_processes_see(page, lab, screenshots):
    page.locator(".wb-explore .wb-table tbody tr", has_text="RTN 4-bit").click()
    name = page.locator(".wb-explore").get_by_label("name", exact=True)
    name.wait_for(timeout=30_000)
    name.fill("the <b>one</b>")
    name.press("Tab")
    press(page, "Save")
    page.locator(".wb-explore .wb-table td", has_text="the <b>one</b>").wait_for(timeout=15_000)
    press(page, "Star")
    page.locator(".wb-explore .wb-table td", has_text="☆").wait_for(timeout=30_000)
    run = Study.open(lab.folder / "runs" / "toy")["the <b>one</b>"]
    assert run.starred
    run.note = "from elsewhere"
    page.locator(".wb-explore .wb-table td", has_text="from elsewhere").wait_for(timeout=10_000)
    page.locator(".wb-explore").get_by_text("names", exact=True).click()
    page.locator(".wb-frontier .textpoint text", has_text="the <b>one</b>").wait_for(timeout=30_000)
    shot(page, screenshots, "runs-named")


def test_the_next_step_is_said(page):
    page.locator(".wb-explore", has_text="Next: Make the predictions").wait_for(timeout=60_000)


def test_a_text_is_tried_on_two_runs(page, screenshots):
    tab(page, "Try it")
    page.locator(".wb-split:visible select").first.select_option(index=[0, 1])
    page.locator(".wb-split:visible button", has_text="Try it").click()
    page.locator(".wb-texts figure").nth(1).wait_for(timeout=60_000)
    shot(page, screenshots, "try-it")


def test_what_is_found_and_handed_over_is_offered(page, screenshots):
    tab(page, "Choose & keep")
    page.locator("h3", has_text="Find it for me").wait_for(timeout=30_000)
    page.locator("h3", has_text="Hand over").wait_for(timeout=30_000)
    shot(page, screenshots, "choose-and-keep")
    assert not page.errors
