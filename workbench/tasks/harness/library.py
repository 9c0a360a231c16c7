"""The lm-evaluation-harness itself: found or named in the error, quiet, its templates in a sandbox.

The harness renders the templates of a task with jinja's plain environment, in which a template can
reach Python's internals. Here they are rendered in jinja's sandbox, whoever wrote them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
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
    from jinja2 import BaseLoader, StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import SandboxedEnvironment

    logger = logging.getLogger("lm_eval")
    with _SWITCHING:
        plain, level = lm_eval.utils.env, logger.level
        sandbox = SandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined)
        sandbox.filters.update(plain.filters)
        bars = datasets.is_progress_bar_enabled()
        lm_eval.utils.env = sandbox
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


def in_words(error: Exception) -> str:
    """Return an error of the harness or of ``datasets`` on one line, cut where it is long."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def aggregation_names() -> dict[Any, str]:
    """Return the harness's names of its aggregation functions."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    return {function: name for name, function in AGGREGATION_REGISTRY.items()}
