"""Tests of the widgets' own JavaScript with a keyboard, in a page without Jupyter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.app.parts.rows import rows_html

pytestmark = pytest.mark.browser

WIDGETS = Path(__file__).resolve().parents[2] / "workbench" / "app" / "parts"
STYLE = ".wb-scroll { overflow: auto; width: 300px } .wb-table td { min-width: 200px }"


@pytest.fixture
def page(browser: Any) -> Any:
    page = browser.new_page()
    yield page
    page.close()


def show(page: Any, table: str) -> None:
    """Show a table as the widget does, with a model that holds still."""
    code = (WIDGETS / "rows.js").read_text(encoding="utf-8").replace("export default", "//")
    page.set_content(f"<style>{STYLE}</style><button>before</button><div id='el'></div>")
    page.evaluate(
        """([code, html]) => {
            const state = {
                html, selected: [], height: '120px', searchable: false, label: '',
                query: '', page: 0, pages: 1, count: '',
            };
            const model = {
                get: name => state[name], set: (name, value) => (state[name] = value),
                save_changes() {}, on() {}, off() {},
            };
            window.state = state;
            new Function('model', 'el', code + '; render({ model, el })')(model, el);
        }""",
        [code, table],
    )
    page.focus("button")
    page.keyboard.press("Tab")


def test_a_table_without_rows_to_choose_is_reached_and_scrolled(page: Any) -> None:
    show(page, rows_html([("a", ""), ("b", "")], [("", [i, i]) for i in range(30)]))
    assert page.evaluate("document.activeElement.className") == "wb-scroll"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "document.activeElement.scrollTop > 0 && document.activeElement.scrollLeft > 0",
        timeout=5000,
    )


def test_rows_are_gone_through_and_chosen(page: Any) -> None:
    show(page, rows_html([("a", "")], [(f"r{i}", [i]) for i in range(30)]))
    assert page.evaluate("document.activeElement.dataset.id") == "r0"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("[document.activeElement.dataset.id, ...state.selected]") == ["r1", "r1"]


def test_a_figure_without_points_leaves_the_keys_to_the_page(page: Any) -> None:
    code = (WIDGETS / "figure_keys.js").read_text(encoding="utf-8")
    page.set_content("<div><div id='el' class='js-plotly-plot'></div></div>")
    kept = page.evaluate(
        """code => {
            new Function('el', code + '; byKeyboard(el)')(el);
            const press = new KeyboardEvent('keydown', { key: 'ArrowDown', cancelable: true });
            return el.dispatchEvent(press);
        }""",
        code,
    )
    assert kept
