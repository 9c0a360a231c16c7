"""The Python standard library as a corpus: areas, held-out modules and text.

Every user has these texts, so the bundled model and tasks need no download. Which modules the
bundled model never saw is fixed here, once, for training and for every task that evaluates it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

AREAS: dict[str, tuple[str, ...]] = {
    "data types": (
        "array",
        "bisect",
        "calendar",
        "collections",
        "copy",
        "dataclasses",
        "datetime",
        "enum",
        "graphlib",
        "heapq",
        "pprint",
        "reprlib",
        "types",
        "weakref",
        "zoneinfo",
    ),
    "text": (
        "codecs",
        "csv",
        "difflib",
        "email",
        "gettext",
        "html",
        "json",
        "locale",
        "re",
        "shlex",
        "string",
        "stringprep",
        "textwrap",
        "tomllib",
        "unicodedata",
        "xml",
    ),
    "files and OS": (
        "bz2",
        "configparser",
        "dbm",
        "filecmp",
        "fileinput",
        "genericpath",
        "getpass",
        "glob",
        "gzip",
        "lzma",
        "mimetypes",
        "ntpath",
        "os",
        "pathlib",
        "platform",
        "plistlib",
        "posixpath",
        "shelve",
        "shutil",
        "sqlite3",
        "stat",
        "tarfile",
        "tempfile",
        "zipfile",
        "zlib",
    ),
    "networking": (
        "ftplib",
        "http",
        "imaplib",
        "ipaddress",
        "mailbox",
        "nntplib",
        "poplib",
        "smtplib",
        "socket",
        "socketserver",
        "ssl",
        "telnetlib",
        "urllib",
        "webbrowser",
        "wsgiref",
        "xmlrpc",
    ),
    "concurrency": (
        "asyncio",
        "concurrent",
        "contextvars",
        "multiprocessing",
        "queue",
        "sched",
        "select",
        "selectors",
        "signal",
        "subprocess",
        "threading",
    ),
    "maths": (
        "cmath",
        "colorsys",
        "decimal",
        "fractions",
        "hashlib",
        "hmac",
        "itertools",
        "math",
        "numbers",
        "operator",
        "random",
        "secrets",
        "statistics",
    ),
    "development tools": (
        "argparse",
        "ast",
        "bdb",
        "cProfile",
        "code",
        "compileall",
        "dis",
        "doctest",
        "ensurepip",
        "inspect",
        "lib2to3",
        "logging",
        "modulefinder",
        "optparse",
        "pdb",
        "pickletools",
        "profile",
        "pstats",
        "pyclbr",
        "pydoc",
        "symtable",
        "timeit",
        "tokenize",
        "trace",
        "traceback",
        "tracemalloc",
        "unittest",
        "venv",
        "warnings",
    ),
}
"""Seven areas of the library and the top-level modules that belong to each."""

HELD_OUT: dict[str, dict[str, tuple[str, ...]]] = {
    "evaluation": {
        "data types": ("enum", "heapq", "pprint"),
        "text": ("textwrap", "shlex", "csv", "gettext"),
        "files and OS": ("shutil", "fileinput", "plistlib"),
        "networking": ("smtplib", "ipaddress", "wsgiref"),
        "concurrency": ("queue", "selectors", "subprocess"),
        "maths": ("fractions", "statistics"),
        "development tools": ("timeit", "bdb", "trace"),
    },
    "validation": {
        "data types": ("copy", "graphlib"),
        "text": ("string", "json"),
        "files and OS": ("glob", "gzip"),
        "networking": ("poplib", "socketserver"),
        "concurrency": ("sched",),
        "maths": ("secrets", "hmac"),
        "development tools": ("pyclbr", "pstats"),
    },
    "calibration": {
        "data types": ("calendar", "weakref"),
        "text": ("difflib",),
        "files and OS": ("tempfile", "configparser", "zipfile"),
        "networking": ("ftplib", "webbrowser"),
        "concurrency": ("concurrent",),
        "maths": ("random", "numbers"),
        "development tools": ("compileall", "traceback", "pdb"),
    },
}
"""Modules that the bundled model was never trained on, by the part of the demo task they serve."""

# C accelerators and second names whose docstrings repeat a held-out module's own.
_TWINS = {
    "_heapq": "heapq",
    "_csv": "csv",
    "_posixsubprocess": "subprocess",
    "_queue": "queue",
    "_json": "json",
    "_random": "random",
    "_weakref": "weakref",
    "_statistics": "statistics",
    "_string": "string",
    "_weakrefset": "weakref",
    "_compat_pickle": "pickle",
}

# Tables, tests and generated files: no language to learn from, and tests repeat held-out code.
_SKIPPED_PARTS = {
    "test",
    "tests",
    "idle_test",
    "encodings",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "turtledemo",
    "lib-dynload",
    "topics.py",
}


@dataclass(frozen=True)
class StdlibDocument:
    """One source file (or one C module's docstrings) of the standard library."""

    name: str
    module: str
    text: str


def area_of(module: str) -> str | None:
    """Return the area that a top-level module belongs to, or None."""
    for area, modules in AREAS.items():
        if module in modules:
            return area
    return None


def held_out_modules(*parts: str) -> frozenset[str]:
    """Return the top-level modules held out for the given parts (all parts when none is given)."""
    chosen = parts or tuple(HELD_OUT)
    return frozenset(m for part in chosen for group in HELD_OUT[part].values() for m in group)


def _source_files() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _SKIPPED_PARTS & set(parts) or parts[0].startswith("_sysconfigdata"):
            continue
        yield parts[0].removesuffix(".py"), path


def _read(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return text if text.strip() else None


def source_documents(modules: frozenset[str] | None = None) -> list[StdlibDocument]:
    """Return the source files of the given top-level modules, one document per file.

    Parameters
    ----------
    modules : frozenset of str, optional
        Top-level names such as ``"json"``; None for all modules that are not held out.
    """
    held_out = held_out_modules()
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    for module, path in _source_files():
        owner = _TWINS.get(module, module)
        wanted = owner not in held_out if modules is None else owner in modules
        if wanted and (text := _read(path)) is not None:
            documents.append(StdlibDocument(path.relative_to(root).as_posix(), owner, text))
    return documents


def _docstrings(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except Exception:  # a platform without this C module simply has less text
        return ""
    found: dict[str, None] = {}
    for owner in [module, *vars(module).values()]:
        members = [owner, *vars(owner).values()] if isinstance(owner, type) else [owner]
        for member in members:
            text = inspect.getdoc(member) if callable(member) or member is module else None
            if text and len(text) > 60:
                found[text] = None
    return "\n\n".join(found)


def documentation_documents() -> list[StdlibDocument]:
    """Return the language reference topics and the docstrings of modules written in C.

    Held-out modules and their C accelerators are left out.
    """
    from pydoc_data import topics

    documents = [
        StdlibDocument(f"topics/{key}", "pydoc_data", text) for key, text in topics.topics.items()
    ]
    held_out = held_out_modules()
    compiled = set(sys.builtin_module_names)
    compiled.update(
        m.name
        for m in pkgutil.iter_modules([str(Path(sysconfig.get_path("stdlib"), "lib-dynload"))])
    )
    for name in sorted(compiled):
        if _TWINS.get(name, name.lstrip("_")) in held_out or name.startswith(
            ("_test", "xx", "_xx")
        ):
            continue
        if text := _docstrings(name):
            documents.append(StdlibDocument(f"docstrings/{name}", name, text))
    return documents


def training_documents() -> list[StdlibDocument]:
    """Return everything the bundled model is trained on: no held-out module among it."""
    return source_documents() + documentation_documents()


def held_out_documents(part: str) -> list[StdlibDocument]:
    """Return the source files held out for one part of the demo task.

    Parameters
    ----------
    part : {"calibration", "validation", "evaluation"}
    """
    return [d for d in source_documents(held_out_modules(part)) if parses(d.text)]


def parses(text: str) -> bool:
    """Return whether a source file is one that this interpreter reads."""
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True
