"""The table twin of the plot: every run, the failed ones and their reasons included."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import ipywidgets as w

from workbench.widgets.throttle import Throttle

if TYPE_CHECKING:
    import pandas as pd

    from workbench.study import Study

_STYLE = """<style>
.wb-table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.wb-table th, .wb-table td { text-align: right; padding: 2px 10px; white-space: nowrap;
  border-bottom: 1px solid rgba(127,127,127,.3); }
.wb-table .text { text-align: left; }
.wb-table .wrap { white-space: normal; min-width: 12em; }
</style>"""


class TablePanel:
    """Every run of a study as a row.

    Parameters
    ----------
    study : Study

    Attributes
    ----------
    widget : ipywidgets.HTML
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self.widget = w.HTML(layout=w.Layout(width="100%", max_height="360px", overflow="auto"))
        self.refresh = Throttle(self._refresh)
        self._refresh()

    def code(self) -> str:
        """Return the Python that makes the table."""
        return "study.table()"

    def _refresh(self) -> None:
        self.widget.value = table_html(self._study.table(), self._study.metric.name)


def table_html(frame: pd.DataFrame, metric: str) -> str:
    """Return a study's table as HTML, every text escaped, the front's runs marked with a star."""
    errors = bool(frame["error"].astype(bool).any())
    several = frame["model"].nunique() > 1
    heads = [("recipe", "text"), ("size (MB)", ""), ("of dense", ""), (metric, ""), ("± 95 %", "")]
    heads += [("front", ""), ("state", "text")]
    heads = [("model", "text")] * several + heads + [("error", "text")] * errors
    rows = ["".join(_cell("th", name.replace("_", " "), kind) for name, kind in heads)]
    for row in frame.to_dict("records"):
        cells = [
            (row["recipe"], "text"),
            (_number(row["size_mb"], ".2f"), ""),
            (_number(row["size_ratio"], ".1%"), ""),
            (_number(row[metric], ".4g"), ""),
            (_number(1.96 * row[f"{metric}_stderr"], ".2g"), ""),
            ("★" if row["pareto"] else "", ""),
            (row["state"], "text"),
        ]
        cells = [(row["model"], "text")] * several + cells
        cells += [(row["error"], "text wrap")] * errors
        rows.append("".join(_cell("td", text, kind) for text, kind in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows[1:])
    return (
        f'{_STYLE}<table class="wb-table"><thead><tr>{rows[0]}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _cell(tag: str, text: object, kind: str) -> str:
    return f'<{tag} class="{kind}">{html.escape(str(text))}</{tag}>'


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
