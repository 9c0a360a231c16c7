"""What was done in a session, as the Python that does the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from workbench.recipes.recipe import Recipe
from workbench.records import RunRecord, RunState

if TYPE_CHECKING:
    from workbench.study import Study

HEAD = '''"""What was done in the Compression Workbench; running this does the same again."""

import workbench as wb
'''


class History:
    """How the study was made, and what was asked of it besides runs.

    The runs themselves are in the study's journal, those of earlier sessions too.

    Attributes
    ----------
    setup : str
        The lines that make the study; empty if it was made elsewhere, and is only opened.
    """

    def __init__(self) -> None:
        self.setup = ""
        self._lines: list[str] = []
        self._kept: dict[str, str] = {}

    def note(self, line: str) -> None:
        """Remember a line that does what was done just now; the newest of equal ones counts."""
        if line in self._lines:
            self._lines.remove(line)
        self._lines.append(line)

    def keep(self, what: str, line: str) -> None:
        """Remember the line that shows what a panel shows now, in place of its earlier one.

        Parameters
        ----------
        what : str
            The panel.
        line : str
            Empty if it shows nothing.
        """
        self._kept.pop(what, None)
        if line:
            self._kept[what] = line

    def code(self, study: Study, path: str | None = None) -> str:
        """Return a whole script.

        Parameters
        ----------
        study : Study
            Its finished runs are computed by the script; what is done is found again.
        path : str, optional
            The folder that the script keeps its study in. Default: the study's own.
        """
        folder = str(study.path) if path is None else path
        setup = self.setup or _setup(study)
        parts = [HEAD, setup, _open(self.setup or setup, folder, study)]
        parts += list(_runs(study.records, study.models))
        # What was written may follow from times, also of runs that were measured again after it.
        parts += sorted(self._lines, key=lambda line: not line.startswith("study.measure("))
        parts += self._kept.values()
        parts.append("print(study.table())")
        return "\n".join(parts) + "\n"


def _setup(study: Study) -> str:
    """Return how the model and the task of a study can be made again, where that is known."""
    described = study.describe()
    sources = described["models"]
    task = described["task"]
    first = next(iter(sources.values()))
    if first["kind"] not in ("demo", "folder", "hub") or task["name"] != "demo":
        return ""
    return f'model = wb.load_model({first["ref"]!r})\ntask = wb.load_task("demo")'


def _open(setup: str, folder: str, study: Study) -> str:
    if setup:
        lines = [f"study = wb.Study(model, task, path={folder!r})"]
        for name, known in list(study.describe()["models"].items())[1:]:
            if known["kind"] in ("demo", "folder", "hub"):
                lines.append(f"study.add_model({known['ref']!r}, name={name!r})")
            else:
                lines.append(f"# study.add_model(..., name={name!r}) takes a model of your own")
        return "\n".join(lines) + "\n"
    return (
        "# The model and the task come from what the study recorded.\n"
        f"study = wb.Study.open({str(study.path)!r})\n"
    )


def _runs(records: Iterable[RunRecord], models: tuple[str, ...]) -> Iterable[str]:
    done = [r for r in records if r.state is RunState.DONE]
    for model in models:
        other = "" if model == models[0] else f", model={model!r}"
        own = [r.recipe for r in done if r.model == model]
        if Recipe() in own:
            yield f"study.run([]{other})"
        recipes = [recipe for recipe in own if recipe.steps]
        if len(recipes) == 1:
            yield f"study.run({recipes[0].code()}{other})"
        elif recipes:
            lines = "".join(f"        {recipe.code()},\n" for recipe in recipes)
            yield f"study.sweep(\n    [\n{lines}    ]{other}\n)"
