"""Answer a benchmark's requests over standard input and output, from a peer's own environment."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch


def serve(run: Callable[[dict[str, Any]], dict[str, Any]], packages: tuple[str, ...]) -> None:
    """Say which versions run here, then answer one JSON object per line with another.

    Parameters
    ----------
    run : callable
        From a request to its answer; an exception becomes ``{"error": …}``.
    packages : tuple of str
        Whose versions are told.
    """
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the peers print; answers keep the real standard output to themselves
    about = {"threads": torch.get_num_threads(), "python": sys.version.split()[0]}
    print(json.dumps({**about, **{name: version(name) for name in packages}}), file=answers)
    for line in sys.stdin:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = run(json.loads(line))
        except Exception as error:  # the parent decides what a failed request means
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)
