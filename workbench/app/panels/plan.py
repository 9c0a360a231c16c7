"""Will it fit? Models by precisions by devices, estimated before any weights are there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app.notice import Notice
from workbench.app.parts.controls import (
    NumberField,
    about,
    answer_html,
    busy_html,
    button,
    card,
    classed,
    columns,
    heading,
    row,
    several_of,
    text,
)
from workbench.app.parts.device_form import DeviceForm
from workbench.app.parts.figure_slot import FigureSlot
from workbench.app.parts.rows import Rows, rows_html
from workbench.errors import ConfigError
from workbench.selection.planning import PRECISIONS, known_devices, known_models

if TYPE_CHECKING:
    import pandas as pd

    from workbench.selection.planning import Device
    from workbench.study import Study
    from workbench.views.plan import Plan

_USUAL = ("16-bit", "8-bit", "4-bit")
ABOUT = (
    "Estimates from configurations alone: no weights are read and nothing is run. What a model"
    " really takes, and how fast it is, is measured on the Frontier tab."
)
NOTHING = "Choose models and devices, and press Estimate."


class PlanPanel:
    """Works without a study; with one its base models are offered too.

    Configurations are read in a background thread.

    Attributes
    ----------
    widget : ipywidgets.Widget
    notice : Notice
    models, precisions, devices : ipywidgets.SelectMultiple
    own : ipywidgets.Text
        Folders or Hugging Face ids, separated by commas.
    device_form : DeviceForm
    context, batch : NumberField
    go : ipywidgets.Button
    answer : ipywidgets.HTML
    table : Rows
    """

    def __init__(self) -> None:
        self.notice = Notice()
        self._devices: dict[str, Device] = {d.name: d for d in known_devices()}
        self._own_devices: dict[str, Device] = {}
        self._number = 0
        self._line = ""
        self.models = several_of("models", 8)
        self.models.options = [(name, name) for name in known_models()]
        self.own = text(
            "and these", placeholder="folder, or Hugging Face id",
            tooltip="Separated by commas; of an id only the configuration is downloaded",
        )  # fmt: skip
        self.precisions = several_of("precisions", len(PRECISIONS))
        self.precisions.options = list(PRECISIONS)
        self.precisions.value = _USUAL
        self.devices = several_of("devices", 7)
        self.devices.options = list(self._devices)
        self.device_form = DeviceForm(self._add)
        self.context = NumberField(
            "context", 4096, 1, 1e7, whole=True,
            tooltip="Tokens of each sequence, prompt and answer",
        )  # fmt: skip
        self.batch = NumberField(
            "sequences", 1, 1, 1e7, whole=True, tooltip="That are worked on at once"
        )
        self.go = button(
            "Estimate", "calculator", on_click=self.notice.guard(lambda _: self._estimate()),
            primary=True,
        )  # fmt: skip
        self.status, self.answer = w.HTML(), w.HTML()
        self.place = FigureSlot()
        self.table = Rows(searchable=True, label="Filter", height="420px")
        self.table.layout.display = "none"
        left = card(
            "Models", self.models, self.own,
            heading("Bits per weight"), self.precisions,
            heading("Devices"), self.devices, self.device_form.widget,
            heading("Use"), self.context, self.batch, row(self.go), self.notice.widget, self.status,
        )  # fmt: skip
        right = card("Will it fit?", about(ABOUT), self.answer, self.place.widget, self.table)
        self.widget = columns("wb-form-side", classed(left, "wb-lists"), right)
        self.answer.value = answer_html(NOTHING)

    def offer(self, study: Study) -> None:
        """Offer the base models of a study, first in the list and chosen."""
        own = [
            (f"{name} (of this study)", known["ref"])
            for name, known in study.describe()["models"].items()
            if known["kind"] in ("demo", "folder", "hub")
        ]
        known = [(name, name) for name in known_models()]
        if list(self.models.options) != [*own, *known]:
            self.models.options = [*own, *known]
            self.models.value = [ref for _, ref in own]

    def code(self) -> str:
        """Return the Python that makes the estimates that are shown, ``""`` if none are."""
        return self._line

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""
        self.place.show(is_seen)

    def refresh(self) -> None:
        """Do nothing: estimates do not follow from runs."""

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
        context, batch = self.context.checked(), self.batch.checked()
        line = _code(refs, devices, precisions, context, batch)
        self._number += 1
        number = self._number
        self.go.disabled = True
        self.status.value = busy_html(
            "Reading configurations … (a first import takes some seconds)"
        )

        def work() -> None:
            try:
                from workbench.views.plan import plan

                found = plan(refs, devices, precisions=precisions, context=context, batch=batch)
                if number == self._number:
                    self._line = line
                    self._show(found)
            except Exception as error:
                self.notice.error(error)
            self.go.disabled = False
            self.status.value = ""

        threading.Thread(target=work, name="wb-plan", daemon=True).start()

    def _show(self, found: Plan) -> None:
        frame = found.table()
        n_fit = sum(row.fits for row in found.rows)
        self.answer.value = answer_html(
            f"{n_fit} of {len(found.rows)} fit at {found.batch} × {found.context:,} tokens."
            " Estimated, not measured."
        )
        self.place.draw(found.plot)
        self.table.html, self.table.layout.display = _rows(frame), ""


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
    for planned in frame.to_dict("records"):
        speed = planned["at_most_tokens_per_s"]
        rows.append(
            (
                "",
                [
                    planned["model"], planned["precision"], planned["device"],
                    "✓ fits" if planned["fits"] else "✕ no",
                    f"{planned['total_gb']:.3g}", f"{planned['usable_gb']:.3g}",
                    f"{speed:,.3g}" if planned["fits"] and speed == speed else "–",
                    f"{planned['longest_context']:,}" if planned["longest_context"] else "–",
                ],
            )
        )  # fmt: skip
    return rows_html(heads, rows)
