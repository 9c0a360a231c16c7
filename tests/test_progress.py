"""Progress: what is thinned, and what is shown where nobody asked for it."""

from __future__ import annotations

import io
import sys
import types

from workbench.progress import Progress, Throttle, on_terminal


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


def test_progress_is_thinned_but_not_at_the_ends_of_a_stage():
    passed: list[Progress] = []
    throttle = Throttle(passed.append)
    for stage in ("calibrate", "evaluate"):
        for done in range(1, 1001):
            throttle(Progress(stage, done, 1000))
    ends = [(p.stage, p.done) for p in passed]
    for stage in ("calibrate", "evaluate"):
        assert (stage, 1) in ends
        assert (stage, 1000) in ends
    assert len(ends) < 20
