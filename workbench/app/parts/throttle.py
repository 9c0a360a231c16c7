"""Call something at most so often, with the newest arguments, from any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Throttle:
    """Calls a function at once, or as soon as the interval since the last call has passed.

    Of calls that come faster only the last one is made; the last of all is always made.

    Parameters
    ----------
    call : callable
        Never called by two threads at the same time.
    interval : float
        Seconds between calls; plots are updated at most four times a second.
    """

    def __init__(self, call: Callable[..., Any], interval: float = 0.25) -> None:
        self._call = call
        self._interval = interval
        self._lock = threading.Lock()
        self._calling = threading.Lock()
        self._timer: threading.Timer | None = None
        self._arguments: tuple[Any, ...] = ()
        self._last = -float("inf")

    def __call__(self, *arguments: Any) -> None:
        with self._lock:
            self._arguments = arguments
            if self._timer is not None:
                return
            wait = self._last + self._interval - time.monotonic()
            if wait > 0:
                self._timer = threading.Timer(wait, self._run)
                self._timer.daemon = True
                self._timer.start()
                return
        self._run()

    def flush(self) -> None:
        """Make a call that waits for its turn now, or wait for one that is being made."""
        with self._lock:
            timer = self._timer
        if timer is not None:
            timer.cancel()
            self._run()
        else:
            with self._calling:
                pass

    def _run(self) -> None:
        with self._calling:
            with self._lock:
                self._timer = None
                self._last = time.monotonic()
                arguments = self._arguments
            self._call(*arguments)
