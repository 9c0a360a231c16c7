"""What importing the package costs, and that everything it promises is there."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import workbench as wb

ROOT = Path(wb.__file__).parents[1]
HEAVY = ("torch", "transformers", "ipywidgets", "plotly", "pandas", "anywidget", "IPython")


def loaded_after(code: str, *arguments: str) -> dict[str, float | list[str]]:
    """Run Python code in a fresh interpreter: seconds it took, and heavy modules it loaded."""
    program = (
        "import json, sys, time\nstart = time.process_time()\n"
        f"{code}\n"
        "seconds = time.process_time() - start\n"
        f"print(json.dumps([seconds, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    output = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    seconds, heavy = json.loads(output.splitlines()[-1])
    return {"seconds": seconds, "heavy": heavy}


def test_importing_is_fast_and_light() -> None:
    result = loaded_after("import workbench")
    assert result["heavy"] == []
    assert result["seconds"] < 0.3


def test_steps_recipes_and_records_need_no_torch() -> None:
    code = "import workbench as wb; wb.Recipe.of([wb.MagnitudePruning(0.5), wb.GPTQ(4)]); wb.Study"
    assert loaded_after(code)["heavy"] == []


def test_looking_at_a_study_loads_neither_torch_nor_a_model(tmp_path: Path) -> None:
    from tests.toy import toy_study

    toy_study(tmp_path / "study").run(wb.RTN(4, group_size=8))
    code = (
        "import workbench as wb\nstudy = wb.Study.open(sys.argv[1])\n"
        "assert len(study.runs) == 2 and len(study.table()) == 2\n"
        "repr(study), repr(study.runs)\n"
        "study.choose(0.5, metric='perplexity'), study.plot('perplexity')\n"
    )
    assert loaded_after(code, str(tmp_path / "study"))["heavy"] == ["plotly", "pandas"]


def test_the_version_is_the_packages() -> None:
    text = (ROOT / "workbench" / "version.py").read_text(encoding="utf-8")
    assert f'__version__ = "{wb.__version__}"' in text


@pytest.mark.parametrize("name", sorted(wb._HOME_OF))
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(wb, name) is not None
    assert name in dir(wb)
    assert name in wb.__all__


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "workbench" / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        (statement.module.removeprefix("workbench."), alias.name)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }
    assert seen == {(home, name) for name, home in wb._HOME_OF.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="GTPQ"):
        wb.GTPQ  # type: ignore[attr-defined]  # noqa: B018


def test_a_name_with_a_typo_is_told_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'GPTQ'"):
        _ = wb.GPQT
    with pytest.raises(AttributeError, match=r"'nothing_like_it'$"):
        _ = wb.nothing_like_it
    assert not hasattr(wb, "__wrapped__")


def test_no_module_imports_itself_over_others() -> None:
    """Not even where only a type checker looks; a contract of import-linter adds the folders."""
    graph = grimp.build_graph("workbench", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()  # an error names the modules of a circle


def test_dir_shows_the_api_only() -> None:
    assert dir(wb) == sorted(wb.__all__)


def test_public_names_and_their_methods_are_described() -> None:
    import inspect

    import workbench

    bare = []
    for name in workbench.__all__:
        value = getattr(workbench, name)
        if inspect.isclass(value):
            described = [(name, value)]
            for key, member in inspect.getmembers(value):
                kind = inspect.isfunction(member) or isinstance(member, property)
                if kind and not key.startswith("_"):
                    described.append((f"{name}.{key}", member))
            bare += [key for key, member in described if not inspect.getdoc(member)]
        elif callable(value) and not inspect.getdoc(value):
            bare.append(name)
    assert bare == []
