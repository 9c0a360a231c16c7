"""Progress that nobody asked for is shown on a terminal only."""

from __future__ import annotations

import io
import sys
import types

from workbench.progress import Progress, on_terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        super().isatty()  # an error once it is closed
        return True


def test_a_line_per_stage_grows_on_a_terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    show = on_terminal()
    for progress in (Progress("gradients", 9, 10), Progress("gradients", 10, 10)):
        show(progress)
    show(Progress("costs", 1, 7))
    assert stream.getvalue() == "\rgradients 9/10\rgradients 10/10\n\rcosts 1/7"


def test_nothing_is_shown_elsewhere(monkeypatch):
    closed = Terminal()
    closed.close()
    for stream in (io.StringIO(), None, closed, types.SimpleNamespace(write=print)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert on_terminal() is None
