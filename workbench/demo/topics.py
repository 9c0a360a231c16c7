"""The task "stdlib-topics": which area of the standard library a docstring belongs to.

Docstrings come from the running interpreter, so nothing is downloaded and nothing is bundled. Whole
modules are in one part: evaluation and validation have modules that the bundled model never saw,
those that the demo task validates with in one, all others in the other.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator

from workbench.demo import stdlib

LEAST_CHARACTERS = 40
"""A shorter docstring ("See help(type(self)).") belongs nowhere."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+")

# Modules whose docstrings are those of the public one, and modules that are written in C alone.
_BEHIND = {
    "_collections_abc": "collections",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_strptime": "datetime",
    "_weakrefset": "weakref",
    "_markupbase": "html",
    "_py_abc": "types",
    "_sitebuiltins": "pydoc",
    "nturl2path": "urllib",
    "posixpath": "os",
    "ntpath": "os",
}
_COMPILED = (
    "_collections",
    "_io",
    "_operator",
    "_struct",
    "array",
    "cmath",
    "fcntl",
    "grp",
    "itertools",
    "math",
    "mmap",
    "pwd",
    "select",
    "time",
    "unicodedata",
    "zlib",
)
_MORE_AREAS = {
    "_io": "files and OS",
    "_struct": "data types",
    "fcntl": "files and OS",
    "grp": "files and OS",
    "mmap": "files and OS",
    "pwd": "files and OS",
    "time": "data types",
    "_collections": "data types",
    "_operator": "maths",
}


def topic_rows() -> dict[str, list[dict[str, str]]]:
    """Return rows of ``text`` (a docstring), ``label`` (its area) and ``document`` (its module).

    A text that has a sentence from another module is left out, so that no part knows another's;
    the modules of the evaluation part come first. Parts are by module, and equal for equal
    interpreters.
    """
    held_out = stdlib.held_out_modules()
    validation = stdlib.held_out_modules("validation")
    found: dict[str, tuple[str, str]] = {}
    known: dict[str, str] = {}  # whole texts and long sentences, with their module
    for module, area, text in sorted(_docstrings(), key=lambda d: (d[0] not in held_out, d)):
        pieces = [p for p in _SENTENCE.split(text.lower()) if len(p) >= LEAST_CHARACTERS]
        pieces.append(text.lower())
        if text.lower() in known or any(known.get(piece, module) != module for piece in pieces):
            continue
        found[text] = (module, area)
        for piece in pieces:
            known.setdefault(piece, module)
    rows: dict[str, list[dict[str, str]]] = {
        part: [] for part in ("calibration", "validation", "evaluation")
    }
    for text, (module, area) in found.items():
        part = "evaluation" if module in held_out else "calibration"
        part = "validation" if module in validation else part
        rows[part].append({"text": text, "label": area, "document": module})
    return rows


def _docstrings() -> Iterator[tuple[str, str, str]]:
    """Yield (module, area, docstring) of the library's functions, classes and modules."""
    modules = frozenset(m for group in stdlib.AREAS.values() for m in group) | frozenset(_BEHIND)
    for document in stdlib.source_documents(modules):
        module = _BEHIND.get(document.module, document.module)
        area = stdlib.area_of(module)
        if area is None or not stdlib.parses(document.text):
            continue
        for node in ast.walk(ast.parse(document.text)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text and len(text) >= LEAST_CHARACTERS:
                    yield module, area, " ".join(text.split())
    for name in _COMPILED:
        area = _MORE_AREAS.get(name) or stdlib.area_of(name)
        assert area is not None
        for text in _compiled(name):
            yield name, area, " ".join(text.split())


def _compiled(name: str) -> Iterator[str]:
    try:
        module = importlib.import_module(name)
    except ImportError:  # not on this platform
        return
    owners = [module, *(v for _, v in sorted(vars(module).items()) if isinstance(v, type))]
    for owner in owners:
        members = [owner, *(v for _, v in sorted(vars(owner).items()) if callable(v))]
        for member in members:
            text = inspect.getdoc(member)
            if text and len(text) >= LEAST_CHARACTERS:
                yield text
