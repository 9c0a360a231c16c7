"""A study of the user's own table in the application: from the upload to a router that is kept."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.browser.conftest import MODES, Lab, wait_for_kernel
from tests.browser.test_app import RUN_MS, SOLID, button, new_page, shot, tab, wait_for_status
from tests.tiny import tiny_model, tiny_tokenizer
from workbench import Router
from workbench.models.load import load_model, save_model

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1500)]

LABELS = ("card_payment_fee_charged", "lost_or_stolen_card", "top_up_by_bank_transfer_charge")
WORDS = ("fee", "stolen", "transfer")
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"


def tickets(n=600):
    """Return a CSV file of texts that name what they are about, some of them something else."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, 3, n)
    said = np.where(rng.random(n) < 0.2, rng.integers(0, 3, n), code)
    more = rng.integers(0, 3, (n, 2))
    rows = [
        f"My {WORDS[s]} {WORDS[a]} {'please help ' * int(b)}{i},{LABELS[c]},"
        f"{'mail' if i % 2 else 'phone'}"
        for i, (c, s, (a, b)) in enumerate(zip(code, said, more, strict=True))
    ]
    return "question,intent,channel\n" + "\n".join(rows) + "\n"


@pytest.fixture(scope="module", params=MODES)
def lab(request, browser, tmp_path_factory):
    """JupyterLab on a folder with a tiny encoder, a table, and a notebook at its start screen."""
    folder = tmp_path_factory.mktemp("deciding")
    save_model(load_model(tiny_model("BertModel"), tiny_tokenizer()), folder / "encoder")
    (folder / "tickets.csv").write_text(tickets())
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
    """The start screen."""
    page = new_page(browser)
    lab.open(page, "/tree/own.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    wait_for_kernel(page)
    page.evaluate("() => { window.jupyterapp.shell.collapseLeft() }")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.locator(".wb-start").wait_for(timeout=120_000)
    yield page
    page.close()


def sub(page, name):
    page.locator(".wb-subnav:visible button", has_text=name).first.click()


def table(page, *texts):
    """Wait until a visible table has all the texts, and return its own text."""
    found = page.locator(".wb-table:visible")
    for text in texts:
        found = found.filter(has_text=text)
    found.first.wait_for(timeout=RUN_MS)
    return found.first.inner_text()


def enter(page, label, value):
    box = page.locator(".wb-app").get_by_label(label, exact=True).locator("visible=true").first
    box.fill(str(value))
    box.press("Enter")


def seen(page, screenshots, name):
    """Take pictures on light and dark, wide and narrow; nothing may stick out of its card."""
    shot(page, screenshots, name)
    page.evaluate(THEME, "JupyterLab Dark")
    page.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'", timeout=30_000)
    page.set_viewport_size({"width": 900, "height": 1300})
    shot(page, screenshots, f"{name}-dark-narrow")
    beyond = page.locator(".wb-card:visible").evaluate_all(
        """cards => cards.filter(card => card.scrollWidth > card.clientWidth + 1)
            .map(card => card.textContent.slice(0, 60))"""
    )
    page.evaluate(THEME, "JupyterLab Light")
    page.set_viewport_size({"width": 1440, "height": 1300})
    page.wait_for_timeout(500)
    assert beyond == []


def test_a_table_from_its_upload_to_a_choice(page, lab, screenshots):
    page.locator(".wb-start button", has_text="Folder or Hugging Face id").click()
    enter(page, "which", "encoder")
    page.locator(".wb-start button", has_text="Labelled table").click()
    with page.expect_file_chooser() as chooser:
        page.locator(".wb-start button", has_text="Upload").click()
    chooser.value.set_files(str(lab.folder / "tickets.csv"))
    table(page, "question", "lost_or_stolen_card")
    assert page.get_by_label("text", exact=True).first.input_value() == "question"
    assert page.get_by_label("label", exact=True).first.input_value() == "intent"
    page.get_by_label("slices", exact=True).select_option("channel")
    seen(page, screenshots, "own-start")
    page.locator(".wb-start button", has_text="Start").click()
    page.locator(f".wb-frontier .scatterlayer {SOLID}").first.wait_for(
        state="attached", timeout=RUN_MS
    )
    page.locator(".wb-recipe").get_by_label("method").select_option(label="RTN")
    page.locator(".wb-step-name", has_text="RTN").wait_for(timeout=20_000)
    enter(page, "values", "2, 4")
    button(page, "Run all").click()
    wait_for_status(page, "RTN 4-bit g128 (done|was done)")
    assert "RTN 2-bit" in table(page, "RTN 4-bit")
    tab(page, "Choose & keep")
    verdicts = page.locator(".wb-verdicts tbody tr[data-id]")
    verdicts.nth(1).wait_for(timeout=20_000)
    assert all(any(s in text for s in "✓✕?") for text in verdicts.all_inner_texts())
    seen(page, screenshots, "own-choose")


def test_what_has_no_times_is_measured_and_priced(page, screenshots):
    tab(page, "Choose & keep")
    sub(page, "Cost")
    button(page, "Measure what is missing").click()
    page.locator("text=Every finished run was measured").wait_for(timeout=RUN_MS)
    for label, value in (("price per hour, $", 1.2), ("queries per month", 1_000_000)):
        enter(page, label, value)
    enter(page, "API per 1,000, $", 0.4)
    assert "400.00" in table(page, "the service", "RTN 2-bit")
    seen(page, screenshots, "own-cost")


def test_a_cascade_is_seen_and_kept(page, lab, screenshots):
    tab(page, "Choose & keep")
    sub(page, "Routing")
    page.get_by_label("tiers", exact=True).select_option(index=[0, 2])
    page.get_by_label("signal", exact=True).select_option("margin")
    button(page, "Show").click()
    assert "p95" in table(page, "cascade", "alone")
    page.locator(".wb-form-side:visible .js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    button(page, "Write router").click()
    page.locator("pre.wb-lines", has_text="wb.Router.load('out/router')").wait_for(timeout=120_000)
    seen(page, screenshots, "own-routing")
    router = Router.load(lab.folder / "out" / "router")
    assert router(["My stolen stolen 1"])[0].label in LABELS


def test_a_run_is_looked_at_before_it_is_trusted(page, screenshots):
    tab(page, "Trust")
    page.get_by_label("run", exact=True).locator("visible=true").select_option(index=1)
    button(page, "Show").click()
    table(page, "is right")
    seen(page, screenshots, "own-trust")
    sub(page, "Slices")
    assert "channel" in table(page, "surely hurt")
    seen(page, screenshots, "own-slices")
    sub(page, "Consistency")
    enter_lines = page.get_by_label("your own", exact=True)
    enter_lines.fill("Dear team, {text}")
    button(page, "Change the texts").click()
    table(page, "typos", "Dear team, {text}")
    seen(page, screenshots, "own-consistency")


def test_what_will_fit_is_estimated(page, screenshots):
    tab(page, "Plan")
    page.get_by_label("models", exact=True).select_option(["llama-3.1-8b", "mixtral-8x7b"])
    page.get_by_label("devices", exact=True).select_option(["laptop 16 GB", "card 24 GB"])
    button(page, "Estimate").click()
    table(page, "✓ fits", "✕ no")
    page.locator(".wb-form-side:visible .js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    seen(page, screenshots, "own-plan")
    tab(page, "Code")
    page.wait_for_function(
        "() => document.querySelector('.wb-code textarea').value.includes('wb.plan(')",
        timeout=20_000,
    )
    script = page.locator(".wb-code textarea").input_value()
    compile(script, "session", "exec")
    for line in ("study.costs(", "study.cascade(", "study.trust(", ".router().save("):
        assert line in script
    assert page.errors == []
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.sessionContext.shutdown() }")
