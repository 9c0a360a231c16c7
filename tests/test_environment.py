"""environment.yml and pyproject.toml name the same packages with the same bounds."""

from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}
EXTRAS = ("lab", "data")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def conda(environment: dict) -> dict[str, SpecifierSet]:
    lines = [Requirement(line) for line in environment["dependencies"] if isinstance(line, str)]
    return {line.name: line.specifier for line in lines}


def test_every_dependency_has_the_same_bounds(project: dict, conda: dict) -> None:
    wanted = [*project["dependencies"]]
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    expected = {
        CONDA_NAMES.get(need.name, need.name): need.specifier for need in map(Requirement, wanted)
    }
    found = {name: bounds for name, bounds in conda.items() if name not in ("python", "pip")}
    assert found == expected


def test_python_has_the_same_bounds(project: dict, conda: dict) -> None:
    assert conda["python"] == SpecifierSet(project["requires-python"])


def test_the_checkout_itself_is_installed_by_pip(project: dict, environment: dict) -> None:
    pip = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert pip == [["-e ."]]
    assert "pip" in environment["dependencies"], "conda wants pip listed beside a pip section"
    assert environment["channels"] == ["conda-forge"]
    assert environment["name"] == project["name"]
