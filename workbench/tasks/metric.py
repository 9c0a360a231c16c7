"""The user's own metric: a callable, its name, and how a saved study finds it again.

A study keeps what its metric is called and a digest of what it does, and nothing that could be run:
studies are handed around, and whoever wrote one could name any function of any module.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
import os
import textwrap
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError, DataError, WorkbenchError
from workbench.fields import flag, shown
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
            f"metric={shown(function)} is not accepted; give a function that returns one number,"
            " such as metric=my_score, and say higher_is_better=True or higher_is_better=False."
        )
    inner, name = _inner(function), _name_of(function)
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
    better = flag(f"your metric {name!r}", "higher_is_better", higher_is_better)
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
    DataError
        If the study was opened without it.
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
    except (MemoryError, WorkbenchError):
        raise
    except Exception as error:
        name = getattr(function, "__name__", "metric")
        raise ConfigError(
            f"Your metric {name!r} failed: {type(error).__name__}: {error}. It gets"
            " (labels, predictions) as arrays for classification, or a table of outcomes for"
            " language models, and must return one number, or one per example."
        ) from error


def digest_of(function: Callable[..., float]) -> str:
    """Return sixteen hexadecimal digits of what a function does, as its source says.

    Comments and layout do not count; what a partial holds does. Empty where there is no source,
    such as of a callable object.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(_inner(function))))
    except (OSError, TypeError, SyntaxError):
        return ""
    held = [getattr(function, "args", ()), getattr(function, "keywords", {})]
    text = ast.unparse(tree) + json.dumps(held, sort_keys=True, default=lambda x: type(x).__name__)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def saved_metric(function: Callable[..., float] | None, fingerprint: str) -> dict[str, Any]:
    """Return what a saved task says of the user's metric besides its name: a digest.

    The function is what the task is measured by from now on, in this process and those it starts.

    Parameters
    ----------
    function : callable or None
    fingerprint : str
        Of the task.
    """
    if function is None:
        return {}
    digest = digest_of(function)
    _register(function, _key(fingerprint, _name_of(function), digest))
    return {"metric_digest": digest}


def use_metric(saved: dict[str, Any], function: Callable[..., float]) -> dict[str, Any]:
    """Make a function the metric of a saved task, at the user's word.

    Parameters
    ----------
    saved : dict
        What the task's ``save`` returned.
    function : callable
        Called as the one that the task was made with.

    Returns
    -------
    dict
        The same, of an earlier version's with the digest in place of where the function lay.

    Raises
    ------
    ConfigError
        If the task has no metric of the user's own, or one of another name.
    """
    name = saved["options"].get("metric")
    if name is None:
        raise ConfigError(
            f"The task {saved['name']!r} has no metric of your own; leave out metric=."
        )
    if not callable(function):
        raise ConfigError(f"metric={function!r} is no function; give {name}.")
    if _name_of(function) != name:
        raise ConfigError(
            f"The task {saved['name']!r} is measured by your metric {name!r}, and"
            f" {_name_of(function)!r} is another one."
        )
    kept = {key: value for key, value in saved.items() if key != "metric_address"}
    own = digest_of(function)
    digest = kept.setdefault("metric_digest", own)
    if digest and own and own != digest:
        warnings.warn(
            f"The metric {name!r} that was given is written differently from the one that the study"
            " was made with; new numbers may not compare with the stored ones.",
            stacklevel=3,
        )
    for known in {digest, saved.get("metric_digest", "")}:
        _register(function, _key(saved["fingerprint"], name, known))
    return kept


def find_metric(saved: dict[str, Any]) -> Callable[..., float] | None:
    """Return the callable that a saved task used, None if it used none.

    It is one that the user passed for this task in this process, or in the one that started it.
    Where a study says that its metric lies is never looked at: whoever wrote the study could have
    it name any function. Without one, what is returned says so when it is called.
    """
    name = saved["options"].get("metric")
    if name is None:
        return None
    key = _key(saved["fingerprint"], str(name), saved.get("metric_digest", ""))
    if key not in _KNOWN and (where := _given().get(key)) is not None:
        module, _, qualname = where.partition(":")
        if (function := _resolve(module, qualname)) is not None:
            _KNOWN[key] = function
    return _KNOWN.get(key) or _Missing(str(name), saved["name"])


class _Missing:
    """Stands for a metric that the user has not passed."""

    def __init__(self, name: str, task: str) -> None:
        self.__name__ = name
        self._task = task

    def __call__(self, *_: Any) -> float:
        name = self.__name__
        raise DataError(
            f"The task {self._task!r} is measured by your own metric {name!r}, which a study does"
            " not keep: what it has measured is shown, and anything new needs the function. Give"
            f" it: Study.open(path, metric={name}), or Study(model, task, path=...) with the task"
            f" made with metric={name}. A worker process also has to import it, from a module."
        )


GIVEN = "WORKBENCH_METRICS"
"""Environment variable that tells the processes started here where the user's metrics lie."""

_KNOWN: dict[str, Callable[..., float]] = {}


def _key(fingerprint: str, name: str, digest: str) -> str:
    return f"{fingerprint} {name} {digest}"


def _register(function: Callable[..., float], key: str) -> None:
    if isinstance(function, _Missing):
        return
    _KNOWN[key] = function
    where = _address(function)
    if where is not None:
        os.environ[GIVEN] = json.dumps({**_given(), key: where})


def _given() -> dict[str, str]:
    found: dict[str, str] = json.loads(os.environ.get(GIVEN, "{}"))
    return found


def _inner(function: Any) -> Any:
    return getattr(function, "func", function)  # functools.partial


def _name_of(function: Any) -> str:
    inner = _inner(function)
    name = str(getattr(inner, "__name__", type(inner).__name__))
    return "metric" if name == "<lambda>" else name


def _address(function: Callable[..., float]) -> str | None:
    """Return ``module:qualname`` if the callable can be imported from there, else None."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", "")
    if not module or module == "__main__" or not name or "<" in name:
        return None
    return f"{module}:{name}" if _resolve(module, name) is function else None


def _resolve(module: str, qualname: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return found
