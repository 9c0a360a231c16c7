"""Tests of the notice and of the throttle."""

from __future__ import annotations

import itertools
import time

from workbench.app.notice import Notice
from workbench.app.parts.throttle import Throttle
from workbench.errors import ConfigError


def test_a_notice_shows_exceptions_of_callbacks_escaped():
    notice = Notice()

    def callback(_):
        raise ConfigError("<script>bits=99</script> is not accepted")

    notice.guard(callback)(None)
    assert "&lt;script&gt;bits 99" in notice.widget.value
    assert "<script>" not in notice.widget.value
    assert 'role="alert"' in notice.widget.value
    assert notice.widget.layout.display != "none"
    notice.clear()
    assert notice.widget.layout.display == "none"


def test_a_notice_names_the_type_of_unexpected_errors():
    notice = Notice()
    notice.guard(lambda: {}["x"])()
    assert "KeyError" in notice.widget.value


def test_throttle_makes_the_first_and_the_last_call():
    calls = []
    throttle = Throttle(lambda value: calls.append((time.monotonic(), value)), interval=0.1)
    start = time.monotonic()
    for value in range(50):
        throttle(value)
        time.sleep(0.005)
    time.sleep(0.2)
    assert calls[0][1] == 0
    assert calls[-1][1] == 49
    assert len(calls) <= (time.monotonic() - start) / 0.1 + 1
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(calls)]
    assert min(gaps) > 0.09


def test_flush_makes_the_waiting_call_now():
    calls = []
    throttle = Throttle(calls.append, interval=60)
    throttle(1)
    throttle(2)
    assert calls == [1]
    throttle.flush()
    assert calls == [1, 2]
    throttle.flush()
    assert calls == [1, 2]
