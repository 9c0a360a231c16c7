"""A device of the user's own: its memory and how fast that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.app.notice import Notice
from workbench.app.parts.controls import NumberField, button, text, toggled
from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.selection.planning import Device


class DeviceForm:
    """Adds devices to a list.

    Parameters
    ----------
    on_add : callable
        Called with the :class:`workbench.Device`.

    Attributes
    ----------
    widget : ipywidgets.Widget
    notice : Notice
    name : ipywidgets.Text
    memory_gb, bandwidth_gb, count : NumberField
    add : ipywidgets.Button
    """

    def __init__(self, on_add: Callable[[Device], None]) -> None:
        self._on_add = on_add
        self.notice = Notice()
        self.name = text("its name", placeholder="my card")
        self.memory_gb = NumberField(
            "memory, GB", None, 0.001, 1e6, tooltip="Of one of them, 10^9 bytes"
        )
        self.bandwidth_gb = NumberField(
            "GB/s", None, 0.001, 1e6,
            tooltip="How fast that memory is read, as its vendor says; decoding is seldom faster",
        )  # fmt: skip
        self.count = NumberField(
            "how many", 1, 1, 1024, whole=True,
            tooltip="That work together, each with its part of every layer",
        )  # fmt: skip
        self.add = button(
            "Add this device", "plus", "Put it in the list above",
            self.notice.guard(lambda _: self._add()),
        )  # fmt: skip
        self.widget = toggled(
            "A device of my own",
            "microchip",
            "Enter the memory and the bandwidth of a device that is not in the list",
            [
                self.name, self.memory_gb, self.bandwidth_gb, self.count, self.add,
                self.notice.widget,
            ],
        )  # fmt: skip

    def _add(self) -> None:
        from workbench.selection.planning import Device

        name = self.name.value.strip()
        if not name or self.memory_gb.value is None or self.bandwidth_gb.value is None:
            raise ConfigError(
                "A device needs a name, its memory in GB and the GB/s that it reads; its vendor's"
                " data sheet has both."
            )
        memory, bandwidth = self.memory_gb.checked() * 1e9, self.bandwidth_gb.checked() * 1e9
        self._on_add(Device(name, memory, bandwidth, count=self.count.checked()))
