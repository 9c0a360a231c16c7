"""A device of the user's own: its memory and how fast that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as w

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.selection.planning import Device

_WIDE = {"description_width": "104px"}


class DeviceForm:
    """Adds devices to a list.

    Parameters
    ----------
    on_add : callable
        Called with the :class:`workbench.Device`.
    guard : callable
        Wraps callbacks, so that what they raise is seen.

    Attributes
    ----------
    widget : ipywidgets.Widget
    name : ipywidgets.Text
    memory_gb, bandwidth_gb, count : ipywidgets.BoundedFloatText
    add : ipywidgets.Button
    """

    def __init__(
        self,
        on_add: Callable[[Device], None],
        guard: Callable[[Callable[..., None]], Callable[..., None]],
    ) -> None:
        self._on_add = on_add
        self.name = w.Text(
            description="its name",
            placeholder="my card",
            style=_WIDE,
            layout=w.Layout(width="auto"),
        )
        self.memory_gb = _number("memory, GB", "Of one of them, 10^9 bytes")
        self.bandwidth_gb = _number(
            "GB/s", "How fast that memory is read, as its vendor says; decoding is seldom faster"
        )
        self.count = w.BoundedIntText(
            value=1,
            min=1,
            max=1024,
            description="how many",
            tooltip="That work together, each with its part of every layer",
            style=_WIDE,
            layout=w.Layout(width="auto"),
        )
        self.add = w.Button(
            description="Add this device",
            icon="plus",
            tooltip="Put it in the list above",
            layout=w.Layout(width="auto"),
        )
        self.add.on_click(guard(lambda _: self._add()))
        fields = w.VBox(
            [self.name, self.memory_gb, self.bandwidth_gb, self.count, self.add],
            layout=w.Layout(display="none"),
        )
        fields.add_class("wb-more")
        self.more = w.ToggleButton(
            description="A device of my own",
            icon="microchip",
            tooltip="Enter the memory and the bandwidth of a device that is not in the list",
            layout=w.Layout(width="auto"),
        )
        self.more.observe(
            lambda change: setattr(fields.layout, "display", "" if change["new"] else "none"),
            names="value",
        )
        self.widget = w.VBox([self.more, fields])

    def _add(self) -> None:
        from workbench.selection.planning import Device

        name = self.name.value.strip()
        if not name or not self.memory_gb.value or not self.bandwidth_gb.value:
            raise ConfigError(
                "A device needs a name, its memory in GB and the GB/s that it reads; its vendor's"
                " data sheet has both."
            )
        self._on_add(
            Device(
                name,
                self.memory_gb.value * 1e9,
                self.bandwidth_gb.value * 1e9,
                count=self.count.value,
            )
        )


def _number(text: str, tooltip: str) -> w.BoundedFloatText:
    return w.BoundedFloatText(
        value=0,
        min=0,
        max=1e6,
        description=text,
        tooltip=tooltip,
        style=_WIDE,
        layout=w.Layout(width="auto"),
    )
