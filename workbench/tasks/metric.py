"""The user's own metric: a callable, its name, and how a saved study finds it again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError, DataError
from workbench.records import Metric

_Read = TypeVar("_Read")


def describe_metric(
    function: Callable[..., float], higher_is_better: bool | None, taken: tuple[str, ...]
) -> Metric:
    """Return what a callable measures.

    Parameters
    ----------
    function : callable
        Its ``__name__`` becomes the metric's name; its attribute ``higher_is_better`` counts
        where the argument is None.
    higher_is_better : bool or None
        The user's word on it; there is no default, because a wrong one would reverse every choice.
    taken : tuple of str
        Names of the task's own metrics.

    Raises
    ------
    ConfigError
        If it is not callable, its name is taken or its direction is not given.
    """
    if not callable(function):
        raise ConfigError(
            f"metric={function!r} is not accepted; give a function that returns one number, such as"
            " metric=my_score, and say higher_is_better=True or higher_is_better=False."
        )
    inner = getattr(function, "func", function)  # functools.partial
    name = str(getattr(inner, "__name__", type(inner).__name__))
    if name == "<lambda>":
        name = "metric"
    if name in taken:
        raise ConfigError(
            f"The function is called {name!r}, which is a metric of the task already"
            f" ({', '.join(taken)}); rename it."
        )
    if higher_is_better is None:
        higher_is_better = getattr(
            function, "higher_is_better", getattr(inner, "higher_is_better", None)
        )
    if higher_is_better is None:
        raise ConfigError(
            f"It is not known whether more of your metric {name!r} is better; give"
            " higher_is_better=True (such as a score) or higher_is_better=False (such as a cost"
            " or an error) beside metric=."
        )
    if higher_is_better not in (True, False):
        raise ConfigError(
            f"higher_is_better={higher_is_better!r} is not accepted for your metric {name!r}; give"
            " True or False."
        )
    better = bool(higher_is_better)
    return Metric(name, higher_is_better=better, numerator=f"{name}:each", statistic="own")


def scores_of_examples(
    function: Callable[..., Any] | None, *arguments: Any
) -> NDArray[np.float64] | None:
    """Call the user's metric, and return its numbers if it gives several, else None.

    Raises
    ------
    ConfigError
        If it raises.
    """
    return _called(
        function,
        arguments,
        lambda found: None if np.ndim(found) != 1 else np.asarray(found, dtype=np.float64),
    )


def call_metric(function: Callable[..., Any] | None, *arguments: Any) -> float:
    """Call the user's metric.

    Raises
    ------
    ConfigError
        If it raises, or returns something that is not a number.
    """
    return _called(function, arguments, float)


def _called(
    function: Callable[..., Any] | None,
    arguments: tuple[Any, ...],
    read: Callable[[Any], _Read],
) -> _Read:
    assert function is not None
    try:
        return read(function(*arguments))
    except MemoryError:
        raise
    except Exception as error:
        name = getattr(function, "__name__", "metric")
        raise ConfigError(
            f"Your metric {name!r} failed: {type(error).__name__}: {error}. It gets"
            " (labels, predictions) as arrays for classification, or a table of outcomes for"
            " language models, and must return one number, or one per example."
        ) from error


def address(function: Callable[..., float] | None) -> str | None:
    """Return ``module:qualname`` if the callable can be imported from there, else None."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", "")
    if not module or module == "__main__" or not name or "<" in name:
        return None
    return f"{module}:{name}" if _resolve(module, name) is function else None


def find_metric(saved: dict[str, Any]) -> Callable[..., float] | None:
    """Return the callable that a saved task used, None if it used none.

    Raises
    ------
    DataError
        If it cannot be imported.
    """
    name = saved["options"].get("metric")
    if name is None:
        return None
    where = saved.get("metric_address")
    if where is not None:
        module, _, qualname = where.partition(":")
        function = _resolve(module, qualname)
        if function is not None:
            return function
    place = f"it was {where}" if where else "it was defined in a notebook or script"
    raise DataError(
        f"The task {saved['name']!r} uses your own metric {name!r}, which cannot be imported"
        f" ({place}). Make the task again with metric={name} and pass it when opening the study,"
        " or move the function into a module."
    )


def _resolve(module: str, qualname: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return found
