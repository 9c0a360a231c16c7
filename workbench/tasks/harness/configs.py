"""Task files of the harness, found by name or path and read without running what they name."""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import Any

from workbench.errors import DataError
from workbench.stored_paths import readable_file
from workbench.tasks.harness.library import harness_folder, require_harness
from workbench.tasks.harness.trusted_code import Code, code_of

PREFIX = "lm-eval:"
"""Before the name of one of the harness's own tasks."""

TASK_FILES = (".yaml", ".yml")


def find_config(ref: str | Path, include_path: str | Path | None = None) -> dict[str, Any]:
    """Return the configuration of one task by name or file; functions are :class:`Code`.

    Parameters
    ----------
    ref : str or Path
        A task file, or the name of a task of the harness, with or without ``lm-eval:`` before it.
    include_path : str or Path, optional
        A folder with further task files, which go before the harness's own.

    Raises
    ------
    DataError
        If there is no such task, it is a group of tasks, or its file cannot be read.
    """
    require_harness()
    text = str(ref)
    if text.lower().endswith(TASK_FILES):
        path = Path(text).expanduser()
        if not path.is_file():
            raise DataError(
                f"There is no task file {text!r} (looked in {str(path.parent.resolve())!r}); give"
                ' the path of a YAML file of the harness, or a name such as "lm-eval:arc_easy".'
            )
        return _one_task(read_config(path), text)
    name = text.removeprefix(PREFIX)
    own = {} if include_path is None else _index(str(Path(include_path).expanduser()))
    entry = own.get(name) or _index(None).get(name)
    if entry is None:
        known = {**_index(None), **own}
        near = difflib.get_close_matches(name, known, 3, 0.6)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise DataError(
            f"The harness has no task {name!r} among its {len(known):,}.{hint} Give a name, or the"
            " path of a task file (.yaml)."
        )
    if entry.yaml_path is None or entry.kind.name in ("GROUP", "TAG"):
        members = sorted(entry.tags) or _names((entry.cfg or {}).get("task", ()))
        raise DataError(_group(name, members))
    return _one_task(read_config(Path(entry.yaml_path)), name)


def _one_task(config: dict[str, Any], ref: str) -> dict[str, Any]:
    if "group" in config or isinstance(config.get("task"), list):
        raise DataError(_group(str(config.get("group", ref)), _names(config.get("task", ()))))
    if not isinstance(config.get("task"), str):
        raise DataError(
            f"{ref} is no task file of the harness: it has no key 'task' with the task's name."
        )
    return config


def _names(members: Any) -> list[str]:
    found = members if isinstance(members, list) else [members]
    return [str(m.get("task", m.get("group"))) if isinstance(m, dict) else str(m) for m in found]


def _group(name: str, members: list[str]) -> str:
    shown = ", ".join(members[:12]) + (f" and {len(members) - 12} more" if members[12:] else "")
    return (
        f"{name!r} is a group of tasks: {shown}. A study is on one task; give one of them, such as"
        f' HarnessTask("{members[0] if members else "arc_easy"}").'
    )


@functools.lru_cache(maxsize=4)
def _index(folder: str | None) -> dict[str, Any]:
    """Return the harness's index of a folder, or of its own task files; nothing is imported."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=folder, include_defaults=folder is None)
    return dict(manager.task_index)


def read_config(path: Path, _above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a task file with what it includes; a key of its own goes before an included one.

    The dictionary also has ``"!file"``, the path of the file.

    Raises
    ------
    DataError
        If a file is missing, is no YAML, or includes itself.
    """
    import yaml

    path = path.expanduser().resolve()
    if path in _above:
        raise DataError(f"The task file {path} includes itself.")
    if len(_above) > MOST_INCLUDES:
        raise DataError(f"The task file {path} lies under {len(_above)} others that include it.")
    try:
        config = _loaded(readable_file(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is no YAML that can be read safely: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(config, dict):
        raise DataError(f"{path} holds a {type(config).__name__}; a task file is a mapping.")
    included = config.pop("include", [])
    merged: dict[str, Any] = {}
    for one in included if isinstance(included, list) else [included]:
        other = (path.parent / str(one)).resolve()
        top = (_above or (path,))[0].parent
        if not (other.is_relative_to(top) or other.is_relative_to(harness_folder())):
            raise DataError(
                f"The task file {path} includes {str(one)!r}, which lies outside of its folder and"
                " is not read. Put it beside the task file."
            )
        merged |= read_config(other, (*_above, path))
    return {**merged, **config, "!file": str(path)}


MOST_INCLUDES = 20
MOST_BYTES = 10_000_000
MOST_NODES = 200_000
"""Values of a task file once every alias stands for what it names."""


def _loaded(path: Path) -> Any:
    """Return what a YAML file holds, unless it is meant to fill the memory."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes; at most {MOST_BYTES:,} are read")
    loader = _loader(path.parent)(path.read_text("utf-8"))
    try:
        node = loader.get_single_node()
        if _expanded(node, {}) > MOST_NODES:
            raise ValueError(f"its aliases stand for more than {MOST_NODES:,} values")
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _expanded(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node stands for, aliases counted where they are used."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # while it is looked at: it would hold itself
        inner = node.value if node is not None and isinstance(node.value, list) else []
        parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]


def _loader(folder: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe YAML in which ``!function`` is a note and no import."""

    def note(loader: yaml.SafeLoader, node: yaml.Node) -> Code:
        if not isinstance(node, yaml.ScalarNode) or "." not in node.value:
            raise yaml.constructor.ConstructorError(
                None, None, "!function names a function as in utils.score", node.start_mark
            )
        return code_of(str(loader.construct_scalar(node)), folder)

    Loader.add_constructor("!function", note)
    return Loader
