"""What leaves this repository: the wheel is complete, and nothing names a machine's folders."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from workbench.cli.commands import NOTEBOOKS

ROOT = Path(__file__).parent.parent
MACHINE_PATH = re.compile(r"(?<![\w.~/])/(?:home|Users|root|work|mnt)/[\w.-]+")
ALLOWED = {"/home/jovyan", "/home/user", "/Users/you", "/home/you"}
BINARY = {".safetensors", ".png", ".gz", ".npz", ".gguf", ".woff2", ".sqlite", ".zip"}
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "training.json")


def tracked_files() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def machine_paths(text: str) -> set[str]:
    return {path for path in MACHINE_PATH.findall(text) if path not in ALLOWED}


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    found = {
        str(path.relative_to(ROOT)): paths
        for path in tracked_files()
        if path.suffix not in BINARY and path != Path(__file__)
        if (paths := machine_paths(path.read_text(encoding="utf-8")))
    }
    assert not found


def test_the_model_is_tracked_and_small() -> None:
    names = {str(path.relative_to(ROOT)) for path in tracked_files()}
    for name in MODEL_FILES:
        assert f"workbench/demo/model/{name}" in names
    size = sum(path.stat().st_size for path in tracked_files() if "demo/model" in str(path))
    assert size < 20e6, f"{size:,} bytes; the wheel should stay quick to download"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    subprocess.run(command, check=True)
    (path,) = folder.glob("compression_workbench-*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_the_wheel_holds_every_tracked_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if path.is_relative_to(ROOT / "workbench")
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert tracked <= packed
    stray = {name for name in packed - tracked if "__pycache__" in name or "checkpoint" in name}
    assert not stray


@pytest.mark.slow
def test_the_wheel_carries_its_licence_and_command(wheel: zipfile.ZipFile) -> None:
    info = {name.split(".dist-info/")[1]: name for name in wheel.namelist() if ".dist-info" in name}
    assert "licenses/LICENSE" in info
    assert "workbench = workbench.cli:main" in wheel.read(info["entry_points.txt"]).decode()
    metadata = wheel.read(info["METADATA"]).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert not machine_paths(metadata)


@pytest.mark.slow
def test_the_wheel_holds_the_notebooks_that_the_terminal_opens(wheel: zipfile.ZipFile) -> None:
    assert {f"workbench/notebooks/{name}" for name in NOTEBOOKS} <= set(wheel.namelist())
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} == set(NOTEBOOKS)
