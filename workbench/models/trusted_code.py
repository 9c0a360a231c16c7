"""Which programs the user trusts: said in a process, known to the processes that it starts.

A study that is opened later does not say it, so that nobody else's study can.
"""

from __future__ import annotations

import hashlib
import os

from workbench.models.sources import Source

TRUSTED = "WORKBENCH_TRUSTED_CODE"
"""Environment variable that says what the user trusts, so that worker processes know."""


def is_trusted(key: str) -> bool:
    """Return whether the user trusts a program in this process, or in the one that started it."""
    return key in os.environ.get(TRUSTED, "").split(",")


def trust(*keys: str) -> None:
    """Remember the user's word for programs."""
    known = {key for key in os.environ.get(TRUSTED, "").split(",") if key}
    if keys:
        os.environ[TRUSTED] = ",".join(sorted(known | set(keys)))


def code_key(source: Source) -> str:
    """Return what is trusted of a model: where it is from, and the bytes of its Python files."""
    digest = hashlib.sha256(f"{source.ref}\n{source.revision}".encode())
    config = source.folder / "config.json"  # it names the code, which may be another repository's
    for path in [config, *sorted(source.folder.glob("*.py"))]:
        if path.is_file():
            digest.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return f"model:{digest.hexdigest()}"
