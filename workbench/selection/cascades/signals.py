"""How sure a model is of an answer: what decides whether it is asked further."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.fields import shown

Signal = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Takes log-probabilities (examples, classes), returns one number each: higher is surer."""


def confidence(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability of the likeliest class."""
    found: NDArray[np.float64] = np.exp(logs.max(axis=1))
    return found


def margin(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much the likeliest class is likelier than the next."""
    if logs.shape[1] < 2:
        return np.ones(len(logs))
    ordered = np.sort(np.exp(logs), axis=1)
    found: NDArray[np.float64] = ordered[:, -1] - ordered[:, -2]
    return found


def entropy(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return minus the entropy of the classes, in nats."""
    found: NDArray[np.float64] = (np.exp(logs) * np.maximum(logs, -1e4)).sum(axis=1)
    return found


SIGNALS: dict[str, Signal] = {"confidence": confidence, "margin": margin, "entropy": entropy}


def signal_named(signal: str | Signal) -> Signal:
    """Return a signal by name, or the callable that was given.

    Raises
    ------
    ConfigError
        If there is none of this name.
    """
    if callable(signal):
        return signal
    if not isinstance(signal, str) or signal not in SIGNALS:
        known = ", ".join(map(repr, SIGNALS))
        raise ConfigError(
            f"signal={shown(signal)} is not accepted; give one of {known}, or a function that takes"
            " log-probabilities (examples, classes) and returns one number each, higher if surer."
        )
    return SIGNALS[signal]


def surety(signal: Signal, logs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the signal of every example.

    Parameters
    ----------
    signal : callable
    logs : ndarray of shape (examples, classes)
        Log-probabilities; rounded to float16 as outcomes keep them, so that what was predicted
        from outcomes is what a router does.

    Raises
    ------
    ConfigError
        If a signal of one's own returns something else than one number per example.
    """
    rounded = np.maximum(np.asarray(logs), -6e4).astype(np.float16).astype(np.float64)
    try:
        found = np.asarray(signal(rounded), dtype=np.float64)
    except (TypeError, ValueError) as error:  # such as a function of other arguments
        raise ConfigError(
            f"The signal {shown(signal)} cannot be computed from log-probabilities (examples,"
            f" classes): {error}. Give one that returns one number per example."
        ) from error
    if found.shape != (len(rounded),) or np.isnan(found).any():
        raise ConfigError(
            f"The signal returned an array of shape {found.shape} (or with NaN) for"
            f" {len(rounded)} examples; it must return one number each."
        )
    return found
