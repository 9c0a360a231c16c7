"""The lm-evaluation-harness itself: found or named in the error, quiet, its templates in a sandbox.

The harness renders the templates of a task with jinja's plain environment, in which a template can
reach Python's internals. Here they are rendered in jinja's sandbox, whoever wrote them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError, DataError

_SWITCHING = threading.RLock()


def require_harness() -> None:
    """Raise ConfigError with the command that installs it if the harness is not there."""
    missing = [name for name in ("lm_eval", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            "Tasks of the lm-evaluation-harness need the extra lm-eval, which is not installed:"
            ' pip install "compression-workbench[lm-eval]".'
        )


def harness_version() -> str:
    """Return the version of the harness that is installed."""
    from importlib.metadata import version

    return version("lm_eval")


def harness_folder() -> Path:
    """Return the folder of the harness's package, without importing it."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None, "require_harness() comes first"
    return Path(str(spec.origin)).resolve().parent


@contextlib.contextmanager
def harness_at_work() -> Iterator[None]:
    """Let the harness work in silence, and render its templates in a sandbox.

    Raises
    ------
    DataError
        If a template asks for what the sandbox does not allow.
    """
    import datasets
    import lm_eval.utils
    from jinja2.exceptions import SecurityError

    logger = logging.getLogger("lm_eval")
    with _SWITCHING:
        plain, level = lm_eval.utils.env, logger.level
        bars = datasets.is_progress_bar_enabled()
        lm_eval.utils.env = _sandbox_like(plain)
        logger.setLevel(logging.ERROR)
        datasets.disable_progress_bars()
        try:
            yield
        except SecurityError as error:
            raise DataError(
                f"A template of the task reaches for Python's internals, which is not allowed:"
                f" {error}. Templates may only use the fields of their document."
            ) from error
        finally:
            lm_eval.utils.env = plain
            logger.setLevel(level)
            if bars:
                datasets.enable_progress_bars()


def _sandbox_like(plain: Any) -> Any:
    """Return a sandbox with the settings of an environment; it makes each template once."""
    from jinja2 import Environment
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import SandboxedEnvironment

    made: dict[Any, Any] = {}

    class Sandbox(SandboxedEnvironment):
        """The harness asks for the same few templates for every document."""

        intercepted_binops = frozenset(("*", "**", "%", "+"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_size(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
            for value in (*args, *kwargs.values()):
                if isinstance(value, int) and abs(value) > MOST_CHARACTERS:
                    raise SecurityError(f"a call with {value:.3g} would fill the memory")
            return super().call(__context, __obj, *args, **kwargs)

        def from_string(self, source: Any, globals: Any = None, template_class: Any = None) -> Any:
            if isinstance(source, str) and _LONG_NUMBER.search(source):
                raise SecurityError("a number of nine digits or more would fill the memory")
            if source not in made:
                made[source] = super().from_string(source, globals, template_class)
            return made[source]

    apart = ("extensions", "loader", "cache_size", "auto_reload", "bytecode_cache", "enable_async")
    names = [name for name in inspect.signature(Environment).parameters if name not in apart]
    sandbox = Sandbox(**{name: getattr(plain, name) for name in names})
    sandbox.filters.update(plain.filters)
    sandbox.tests.update(plain.tests)
    return sandbox


MOST_CHARACTERS = 10_000_000
"""Of what an operation within a template may make."""

_LONG_NUMBER = re.compile(r"\d{9}")


def _check_size(operator: str, left: Any, right: Any) -> None:
    """Raise SecurityError if an operation of a template would make something huge."""
    from jinja2.exceptions import SecurityError

    size = 0.0
    if operator == "*":
        for one, other in ((left, right), (right, left)):
            if isinstance(other, int) and hasattr(one, "__len__"):
                size = max(size, len(one) * other)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        size = max(right, 0) * abs(left).bit_length()
    elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        size = len(left) + len(right)
    if size > MOST_CHARACTERS:
        raise SecurityError(f"an operation with {operator} would fill the memory")


def in_words(error: Exception) -> str:
    """Return an error of the harness or of ``datasets`` on one line, cut where it is long."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def aggregation_names() -> dict[Any, str]:
    """Return the harness's names of its aggregation functions."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    return {function: name for name, function in AGGREGATION_REGISTRY.items()}
