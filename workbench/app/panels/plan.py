"""Will it fit? Models by precisions by devices, estimated before any weights are there."""

from __future__ import annotations

import html
import threading
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app.parts.device_form import DeviceForm
from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.notice import Notice
from workbench.app.parts.rows import Rows, rows_html
from workbench.errors import ConfigError
from workbench.selection.planning import PRECISIONS, known_devices, known_models

if TYPE_CHECKING:
    import pandas as pd

    from workbench.selection.planning import Device
    from workbench.study import Study
    from workbench.views.plan import Plan

_WIDE = {"description_width": "104px"}
_USUAL = ("16-bit", "8-bit", "4-bit")
ABOUT = (
    "Estimates from configurations alone: no weights are read and nothing is run. What a model"
    " really takes, and how fast it is, is measured on the Frontier tab."
)
NOTHING = "Choose models and devices, and press Estimate."


class PlanPanel:
    """Works without a study; with one its base models are offered too.

    Configurations are read in a background thread.

    Parameters
    ----------
    banner : Notice

    Attributes
    ----------
    widget : ipywidgets.Widget
    models, precisions, devices : ipywidgets.SelectMultiple
    own : ipywidgets.Text
        Folders or Hugging Face ids, separated by commas.
    device_form : DeviceForm
    context, batch : ipywidgets.BoundedIntText
    go : ipywidgets.Button
    answer : ipywidgets.HTML
    table : Rows
    """

    def __init__(self, banner: Notice) -> None:
        self._banner = banner
        guard = banner.guard
        self._devices: dict[str, Device] = {d.name: d for d in known_devices()}
        self._own_devices: dict[str, Device] = {}
        self._number = 0
        self._line = ""
        self.models = _several("models", 8)
        self.models.options = [(name, name) for name in known_models()]
        self.own = w.Text(
            description="and these",
            placeholder="folder, or Hugging Face id",
            tooltip="Separated by commas; of an id only the configuration is downloaded",
            style=_WIDE,
            layout=w.Layout(width="auto"),
        )
        self.precisions = _several("precisions", len(PRECISIONS))
        self.precisions.options = list(PRECISIONS)
        self.precisions.value = _USUAL
        self.devices = _several("devices", 7)
        self.devices.options = list(self._devices)
        self.device_form = DeviceForm(self._add, guard)
        self.context = _whole("context", 4096, "Tokens of each sequence, prompt and answer")
        self.batch = _whole("sequences", 1, "That are worked on at once")
        self.go = w.Button(
            description="Estimate",
            icon="calculator",
            button_style="primary",
            layout=w.Layout(width="auto"),
        )
        self.go.on_click(guard(lambda _: self._estimate()))
        self.status, self.answer = w.HTML(), w.HTML()
        self.place = FigureSlot()
        self.table = Rows(searchable=True, label="Filter", height="420px")
        self.table.layout.display = "none"
        buttons = w.HBox([self.go])
        buttons.add_class("wb-buttons")
        left = w.VBox(
            [
                w.HTML("<h3>Models</h3>"),
                self.models,
                self.own,
                w.HTML("<h3>Bits per weight</h3>"),
                self.precisions,
                w.HTML("<h3>Devices</h3>"),
                self.devices,
                self.device_form.widget,
                w.HTML("<h3>Use</h3>"),
                self.context,
                self.batch,
                buttons,
                self.status,
            ]
        )
        about = w.HTML(f'<div class="wb-about">{ABOUT}</div>')
        right = w.VBox(
            [w.HTML("<h3>Will it fit?</h3>"), about, self.answer, self.place.widget, self.table]
        )
        for part in (left, right):
            part.add_class("wb-card")
        left.add_class("wb-lists")
        self.widget = w.HBox([left, right])
        self.widget.add_class("wb-form-side")
        self._say_answer(NOTHING)

    def offer(self, study: Study) -> None:
        """Offer the base models of a study, first in the list and chosen."""
        own = [
            (f"{name} (of this study)", known["ref"])
            for name, known in study.describe()["models"].items()
            if known["kind"] in ("demo", "folder", "hub")
        ]
        known = [(name, name) for name in known_models()]
        self.models.options = [*own, *known]
        self.models.value = [ref for _, ref in own]

    def code(self) -> str:
        """Return the Python that makes the estimates that are shown, ``""`` if none are."""
        return self._line

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""
        self.place.show(is_seen)

    def _add(self, device: Device) -> None:
        self._own_devices[device.name] = device
        kept = [*self.devices.value, device.name]
        self.devices.options = list({**self._devices, **self._own_devices})
        self.devices.value = list(dict.fromkeys(kept))

    def _estimate(self) -> None:
        own = [text.strip() for text in self.own.value.split(",") if text.strip()]
        refs = [*dict.fromkeys([*self.models.value, *own])]
        devices = [self._own_devices.get(name, name) for name in self.devices.value]
        precisions = list(self.precisions.value)
        for what, chosen in (("model", refs), ("device", devices), ("precision", precisions)):
            if not chosen:
                raise ConfigError(f"No {what} is chosen; Ctrl or Shift selects several.")
        context, batch = self.context.value, self.batch.value
        line = _code(refs, devices, precisions, context, batch)
        self._number += 1
        number = self._number
        self._banner.clear()
        self.go.disabled = True
        self._say("Reading configurations … (a first import takes some seconds)")

        def work() -> None:
            try:
                from workbench.views.plan import plan

                found = plan(refs, devices, precisions=precisions, context=context, batch=batch)
                if number == self._number:
                    self._line = line
                    self._show(found)
            except Exception as error:
                self._banner.error(error)
            self.go.disabled = False
            self._say("")

        threading.Thread(target=work, name="wb-plan", daemon=True).start()

    def _show(self, found: Plan) -> None:
        frame = found.table()
        n_fit = sum(row.fits for row in found.rows)
        self._say_answer(
            f"{n_fit} of {len(found.rows)} fit at {found.batch} × {found.context:,} tokens."
            " Estimated, not measured."
        )
        self.place.draw(found.plot)
        self.table.html, self.table.layout.display = _rows(frame), ""

    def _say_answer(self, text: str) -> None:
        shown = f'<span role="status">{html.escape(text)}</span>'
        self.answer.value = f'<div class="wb-answer">{shown}</div>'

    def _say(self, text: str) -> None:
        busy = '<span class="wb-spinner" aria-hidden="true"></span>' if text else ""
        self.status.value = f'{busy}<span role="status">{html.escape(text)}</span>' if text else ""


def _code(
    refs: list[str],
    devices: list[str | Device],
    precisions: list[str],
    context: int,
    batch: int,
) -> str:
    named = ", ".join(
        repr(d)
        if isinstance(d, str)
        else f"wb.Device({d.name!r}, {d.memory_bytes!r}, {d.bandwidth_bytes_per_s!r},"
        f" count={d.count})"
        for d in devices
    )
    given = [repr(refs), f"[{named}]", f"precisions={precisions!r}"]
    given += [f"context={context}"] * (context != 4096) + [f"batch={batch}"] * (batch != 1)
    return f"wb.plan({', '.join(given)})"


def _rows(frame: pd.DataFrame) -> str:
    heads = [
        ("model", "text"), ("precision", "text"), ("device", "text"), ("fits", "text"),
        ("needs, GB", ""), ("of, GB", ""), ("at most tokens/s", ""), ("longest context", ""),
    ]  # fmt: skip
    rows: list[tuple[str, list[Any]]] = []
    for row in frame.to_dict("records"):
        speed = row["at_most_tokens_per_s"]
        rows.append(
            (
                "",
                [
                    row["model"], row["precision"], row["device"],
                    "✓ fits" if row["fits"] else "✕ no",
                    f"{row['total_gb']:.3g}", f"{row['usable_gb']:.3g}",
                    f"{speed:,.3g}" if row["fits"] and speed == speed else "–",
                    f"{row['longest_context']:,}" if row["longest_context"] else "–",
                ],
            )
        )  # fmt: skip
    return rows_html(heads, rows)


def _several(text: str, rows: int) -> w.SelectMultiple:
    return w.SelectMultiple(
        rows=rows,
        description=text,
        tooltip="Ctrl or Shift selects several",
        style={"description_width": "0px"},
        layout=w.Layout(width="100%"),
    )


def _whole(text: str, value: int, tooltip: str) -> w.BoundedIntText:
    return w.BoundedIntText(
        value=value,
        min=1,
        max=10_000_000,
        description=text,
        tooltip=tooltip,
        style=_WIDE,
        layout=w.Layout(width="auto"),
    )
