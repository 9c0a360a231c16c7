"""Programs that a task names: told apart without running them, and run only if they are trusted.

A task file may name Python functions (``!function utils.score``). Those of the installed harness
are its own code. Others lie next to the user's file, and are imported only if the user says
``trust_remote_code=True``; a study's worker process inherits that word, a study that is opened
later does not. The same goes for metrics that are programs of the Hugging Face hub.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError
from workbench.models import trusted_code
from workbench.models.trusted_code import is_trusted
from workbench.tasks.harness.library import harness_folder, in_words


@dataclass(frozen=True)
class Code:
    """A Python function that a task file names.

    Attributes
    ----------
    name : str
        As in the file, such as ``utils.score``.
    file : str
        The Python file; relative to the harness's package for its own code; empty where it is a
        module that is installed.
    sha256 : str
        Of that file's bytes; empty where it is a module, or the harness's own.
    """

    name: str
    file: str
    sha256: str

    @property
    def is_harness(self) -> bool:
        """Whether it is code of the installed harness."""
        return bool(self.file) and not self.sha256

    def load(self) -> Callable[..., Any]:
        """Return the function.

        Raises
        ------
        ConfigError
            If its file may not be imported here, is not the one that was trusted, or lacks it.
        """
        module, _, name = self.name.rpartition(".")
        own = harness_folder()
        path = (own / self.file).resolve() if self.is_harness else Path(self.file)
        if self.is_harness and not path.is_relative_to(own):  # as no task that was made here says
            raise ConfigError(f"The task's function {self.name!r} lies outside of the harness.")
        try:
            if not self.is_harness:
                self._check_trust()
            if self.file:
                found: Any = _imported(path, self.sha256)
            else:
                found = importlib.import_module(module)
            function: Callable[..., Any] = getattr(found, name)
            return function
        except (ConfigError, MemoryError):
            raise
        except Exception as error:  # whatever goes wrong in a file of the user's
            raise ConfigError(
                f"The task's function {self.name!r} cannot be imported from"
                f" {str(path) if self.file else module!r}: {in_words(error)}."
            ) from error

    def _check_trust(self) -> None:
        if not is_trusted(self.trust_key):
            raise ConfigError(
                f"The task needs the Python function {self.name!r} ({self.file or 'a module'}),"
                " which is not imported without your word. Read it, and if you trust it make the"
                " task again with trust_remote_code=True and give it to the study."
            )
        if self.file and _sha256(Path(self.file)) != self.sha256:
            raise ConfigError(
                f"{self.file} has changed since you trusted it; make the task again with"
                " trust_remote_code=True."
            )

    @property
    def trust_key(self) -> str:
        """What is trusted: these bytes, or the name of an installed function."""
        return self.sha256 or f"module:{self.name}"

    def to_dict(self) -> dict[str, str]:
        return {"!function": self.name, "file": self.file, "sha256": self.sha256}


@functools.lru_cache(maxsize=64)
def _imported(path: Path, sha256: str) -> Any:
    name = f"workbench_harness_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{sha256[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_of(name: str, folder: Path) -> Code:
    """Return the function that a task file in a folder names."""
    module = name.rpartition(".")[0]
    path = (folder / f"{module.replace('.', '/')}.py").resolve()
    if not path.is_file():
        return Code(name, "", "")
    own = harness_folder()
    if path.is_relative_to(own):
        return Code(name, path.relative_to(own).as_posix(), "")
    return Code(name, str(path), _sha256(path))


def codes_in(value: Any) -> Iterator[Code]:
    """Yield every function that a configuration names."""
    if isinstance(value, Code):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from codes_in(inner)


def replaced(value: Any, change: Callable[[Code], Any]) -> Any:
    """Return a deep copy of a configuration with every function changed to something else."""
    if isinstance(value, Code):
        return change(value)
    if isinstance(value, dict):
        return {key: replaced(inner, change) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [replaced(inner, change) for inner in value]
    return value


def revived(value: Any) -> Any:
    """Return a configuration from its JSON form, functions as :class:`Code`."""
    if isinstance(value, dict):
        if "!function" in value:
            return Code(value["!function"], value["file"], value["sha256"])
        return {key: revived(inner) for key, inner in value.items()}
    return [revived(inner) for inner in value] if isinstance(value, list) else value


def hub_metrics(config: dict[str, Any]) -> list[str]:
    """Return the metrics of a task that the harness would fetch as programs from the hub."""
    from lm_eval.api.registry import METRIC_REGISTRY, get_metric_aggregation

    get_metric_aggregation("acc")  # fills the registry
    if config.get("process_results") is not None:
        return []
    entries = [entry for entry in config.get("metric_list") or () if isinstance(entry, dict)]
    return sorted(
        str(entry["metric"])
        for entry in entries
        if isinstance(entry.get("metric"), str)
        and (entry.get("hf_evaluate") or entry["metric"] not in METRIC_REGISTRY)
    )


_LOADS_PROGRAMS = re.compile(r"^\s*(?:import|from) evaluate\b", re.MULTILINE)
_OTHER_TASKS = re.compile(r"^\s*(?:import|from) lm_eval\.(tasks\.[\w.]+)", re.MULTILINE)


def hub_code(config: dict[str, Any]) -> list[str]:
    """Return the harness's own Python files that would fetch programs from the hub."""
    files = {code.file for code in codes_in(config) if code.is_harness}
    return sorted(file for file in files if _loads_programs(file, set()))


def _loads_programs(file: str, seen: set[str]) -> bool:
    own = harness_folder()
    path = (own / file).resolve()
    if file in seen or not path.is_relative_to(own) or not path.is_file():
        return False
    seen.add(file)
    text = path.read_text("utf-8", errors="replace")
    others = [f"{name.replace('.', '/')}.py" for name in _OTHER_TASKS.findall(text)]
    found = _LOADS_PROGRAMS.search(text) is not None
    return found or any(_loads_programs(other, seen) for other in others)


def check_code(config: dict[str, Any], *, trust: bool) -> None:
    """Trust the programs that a task runs, or refuse those that are not the harness's own.

    Raises
    ------
    ConfigError
        If there are some and the user did not say that they are trusted.
    """
    foreign = {code for code in codes_in(config) if not code.is_harness}
    metrics, loading = hub_metrics(config), hub_code(config)
    if trust:
        hub = {f"metric:{name}" for name in metrics} | {f"hub:{file}" for file in loading}
        trusted_code.trust(*{code.trust_key for code in foreign}, *hub)
        return
    if foreign:
        shown = "; ".join(
            sorted(f"{code.name} in {code.file or 'an installed module'}" for code in foreign)
        )
        raise ConfigError(
            f"The task {config['task']!r} runs Python functions of its own ({shown}). Read them,"
            " and if you trust them give trust_remote_code=True."
        )
    if metrics:
        raise ConfigError(
            f"The task {config['task']!r} is measured by {metrics[0]!r}, a program that would be"
            " fetched from the Hugging Face hub and run. If you trust it, give"
            " trust_remote_code=True; else name a metric of the harness in its metric_list."
        )
    if loading:
        raise ConfigError(
            f"The task {config['task']!r} is scored by the harness's {loading[0]}, which fetches"
            " programs from the Hugging Face hub (evaluate.load) and runs them. If you trust them,"
            " give trust_remote_code=True."
        )


def check_trusted(config: dict[str, Any]) -> None:
    """Refuse a recorded task that would run a program of the hub without the user's word.

    Raises
    ------
    ConfigError
        If it would; its functions are asked for when they are imported.
    """
    for name in hub_metrics(config):
        if not is_trusted(f"metric:{name}"):
            raise ConfigError(
                f"The task {config['task']!r} is measured by {name!r}, a program of the Hugging"
                " Face hub, which is not run without your word. If you trust it make the task"
                " again with trust_remote_code=True and give it to the study."
            )
    for file in hub_code(config):
        if not is_trusted(f"hub:{file}"):
            raise ConfigError(
                f"The task {config['task']!r} is scored by the harness's {file}, which runs"
                " programs of the Hugging Face hub, and that is not done without your word. If you"
                " trust them make the task again with trust_remote_code=True and give it to the"
                " study."
            )
