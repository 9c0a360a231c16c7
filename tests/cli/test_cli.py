"""Tests of the terminal: messages and exit codes as a person meets them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.toy import toy_study
from workbench import __version__
from workbench.cli import commands as cli
from workbench.cli.commands import main, recipes_of
from workbench.cli.progress import follow
from workbench.errors import ConfigError, StudyError
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    Cast,
    LowRankCorrection,
    MagnitudePruning,
    SparseGPT,
    Wanda,
)
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.runtime.measure.memory import Memory
from workbench.study import Study


def run(monkeypatch, *arguments):
    """Return the exit code of a command line."""
    monkeypatch.setattr(sys, "argv", ["workbench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study with three runs, one of which failed."""
    folder = tmp_path_factory.mktemp("cli") / "study"
    with toy_study(folder) as study:
        study.sweep([RTN(4, group_size=8), RTN(8, group_size=8)])
        claim = study._workspace.store.claim(
            "f" * 12, model=study.models[0], recipe=Recipe.of(RTN(2))
        )
        with claim:
            claim.fail(RunState.FAILED, "too <few>\ntokens")
    return folder


# -- what needs no study ----------------------------------------------------------------------


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == f"compression-workbench {__version__}"


def test_help_does_not_load_torch():
    code = (
        "import sys; sys.argv = ['workbench', '--help']\n"
        "from workbench.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = ("demo", "lab", "sweep", "table", "plot", "choose")
    for command in (*commands, "predict", "frontier", "sensitivity", "fit"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table", "nowhere"], "There is no study in nowhere"),
        (["sweep", "--methods", "gptqq"], "Did you mean gptq?"),
        (["sweep", "--methods", "correction"], "needs a step before it"),
        (["sweep", "--bits", "four"], "--bits: 'four' is not a number"),
        (["sweep", "--bits", "9"], "bits=9 is not accepted"),
        (["sweep", "--task", "tickets.csv"], "--text question --label intent"),
        (["sweep", "--text", "question"], "is none"),
        (["sweep", "--methods", "rtn", "--exportable"], "--exportable is for AWQ"),
        (["sweep", "--shots", "2"], "are for a table"),
        (["sweep", "--trust-remote-code"], "is for tasks of the harness"),
        (["sweep", "--task", "own.yaml", "--text", "question"], "which says that itself"),
        (["sweep", "--task", "own.yaml"], "There is no task file 'own.yaml'"),
        (["predict", "nowhere"], "There is no study in nowhere"),
        (["predict", "nowhere", "--methods", "gptqq"], "Did you mean gptq?"),
        (["fit", "nowhere"], "--bits-per-weight 3 or --size-mb 4"),
        (["fit", "nowhere", "--size-mb", "4", "--bits-per-weight", "3"], "Give either"),
        (["sensitivity", "nowhere", "--methods", "rtn+correction"], "several steps"),
        (["sensitivity", "nowhere", "--html", "heat.svg"], "ends with .html"),
        (["lab", "other.ipynb"], "There is no notebook 'other.ipynb'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(monkeypatch, capsys, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_unknown_commands_and_options_are_usage_errors(monkeypatch, capsys):
    assert run(monkeypatch, "tabel") == 2
    assert run(monkeypatch, "table") == 2
    assert run(monkeypatch, "demo", "--bogus") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_recipes_are_every_combination_once():
    recipes = recipes_of("rtn, GPTQ,magnitude,cast,rtn", "3,4", "32,none", "0.5")
    assert [r.steps[0] for r in recipes] == [
        RTN(3, group_size=32),
        RTN(3, group_size=None),
        RTN(4, group_size=32),
        RTN(4, group_size=None),
        GPTQ(3, group_size=32),
        GPTQ(3, group_size=None),
        GPTQ(4, group_size=32),
        GPTQ(4, group_size=None),
        MagnitudePruning(0.5),
        Cast(),
    ]
    assert recipes_of("MagnitudePruning", "4", "128", "0.3") == recipes_of(
        "magnitude", "4", "128", "0.3"
    )
    assert recipes_of("sparsegpt", "4", "128", "0.5,0.6") == [
        Recipe.of(SparseGPT(0.5)),
        Recipe.of(SparseGPT(0.6)),
    ]
    assert recipes_of("wanda + gptq+ correction", "3,4", "32", "0.5") == [
        Recipe.of([Wanda(0.5), GPTQ(bits, group_size=32), LowRankCorrection()]) for bits in (3, 4)
    ]
    with pytest.raises(ConfigError, match="--methods is empty"):
        recipes_of(",", "4", "128", "0.5")


def test_awq_can_be_exportable():
    recipes = recipes_of("rtn,awq", "4", "128", "0.5", exportable=True)
    assert [r.steps[0] for r in recipes] == [RTN(4), AWQ(4, exportable=True)]
    with pytest.raises(ConfigError, match="add awq to --methods"):
        recipes_of("rtn,gptq", "4", "128", "0.5", exportable=True)


def test_lab_without_jupyterlab_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    assert run(monkeypatch, "lab") == 2
    assert 'pip install "compression-workbench[lab]"' in capsys.readouterr().err


def test_lab_copies_the_quickstart_and_opens_it(monkeypatch, capsys, tmp_path):
    started = []

    class Process:
        def __init__(self, command):
            started.append(command)

        def wait(self):
            return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.subprocess, "Popen", Process)
    assert run(monkeypatch, "lab", "01-quickstart.ipynb", "--no-browser") == 0
    assert started == [[sys.executable, "-m", "jupyterlab", "01-quickstart.ipynb", "--no-browser"]]
    copied = tmp_path / "01-quickstart.ipynb"
    assert json.loads(copied.read_text())["metadata"]["kernelspec"]["name"] == "python3"
    copied.write_text("my own")
    assert run(monkeypatch, "lab") == 0
    assert copied.read_text() == "my own"
    assert run(monkeypatch, "lab", "03-choose-the-right-size.ipynb") == 0
    assert started[-1][3:] == ["03-choose-the-right-size.ipynb"]
    assert json.loads((tmp_path / "03-choose-the-right-size.ipynb").read_text())["cells"]
    assert run(monkeypatch, "lab", "--no-browser", "--port", "8899") == 0
    assert started[-1][3:] == ["01-quickstart.ipynb", "--no-browser", "--port", "8899"]
    assert run(monkeypatch, "lab", "--no-browser", "03-choose-the-right-size.ipynb") == 0
    assert started[-1][3:] == ["03-choose-the-right-size.ipynb", "--no-browser"]
    monkeypatch.setattr(cli, "bundled_notebook", lambda name: tmp_path / "nowhere")
    assert run(monkeypatch, "lab", "02-distil-and-specialise.ipynb") == 2
    assert "cannot be copied to this folder (No such file" in capsys.readouterr().err


# -- a finished study -------------------------------------------------------------------------


def test_table_is_plain_when_not_on_a_terminal(monkeypatch, capsys, finished):
    assert run(monkeypatch, "table", finished) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "RTN 4-bit g8" in out
    assert "★" in out
    failed = next(line for line in out.splitlines() if "RTN 2-bit" in line)
    assert "failed" in failed
    assert "too <few> tokens" in failed
    assert run(monkeypatch, "table", finished, "--csv") == 0
    assert capsys.readouterr().out.startswith("run,model,recipe,state,size_mb")


def test_plot_writes_a_page_or_a_picture(monkeypatch, capsys, finished, tmp_path):
    page, picture = tmp_path / "a" / "plot.html", tmp_path / "b" / "plot.svg"
    assert run(monkeypatch, "plot", finished, "--html", page, "--log-x") == 0
    assert str(page) in capsys.readouterr().out
    assert "RTN 4-bit g8" in page.read_text()
    assert "too &lt;few&gt; tokens" in page.read_text()
    assert run(monkeypatch, "plot", finished, "--html", picture) == 0
    assert picture.read_text().startswith("<svg")


def test_choose_names_a_run_or_fails(monkeypatch, capsys, finished):
    assert run(monkeypatch, "choose", finished, "--accuracy", "0.5") == 0
    out = capsys.readouterr().out
    assert "RTN 4-bit g8 passes" in out
    assert ".model('" in out
    assert run(monkeypatch, "choose", finished, "--size-mb", "0.000001") == 1
    assert "No run passes" in capsys.readouterr().out
    assert run(monkeypatch, "choose", finished, "--accuracy", "97") == 2
    assert "give 0.97" in capsys.readouterr().err


# -- computing --------------------------------------------------------------------------------


def test_measure_prints_a_line_per_run_and_fills_the_table(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(
        "workbench.runtime.measure.model.measure_memory",
        lambda packed, n_tokens: Memory(5_000_000, 9),
    )
    study = toy_study(tmp_path / "study")
    one = study.run(RTN(4, group_size=8))
    assert run(monkeypatch, "measure", str(study.path), "--run", one.id, "--repeats", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[1/1] tiny, RTN 4-bit g8: ")
    assert "dense bfloat16" in lines[0]
    assert "holds 5.0 MB after a run" in lines[0]
    assert "thread" in lines[1]
    assert study.baseline().record.measurement("latency_ms") is None
    assert run(monkeypatch, "measure", str(study.path), "--all", "--repeats", "3") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert study.baseline().record.measurement("latency_ms") is not None
    assert run(monkeypatch, "table", str(study.path)) == 0
    assert "dense bfloat16, short path" in capsys.readouterr().out
    assert run(monkeypatch, "measure", str(study.path)) == 2
    assert "--run ID" in capsys.readouterr().err


def test_measuring_goes_on_after_a_run_that_fails(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        "workbench.runtime.measure.model.measure_memory",
        lambda packed, n_tokens: Memory(5_000_000, 9),
    )
    study = toy_study(tmp_path / "study")
    one = study.run(RTN(4, group_size=8))
    inner = Study.measure

    def some(self, run, **options):
        if run != one.id:
            raise StudyError("it does not load")
        return inner(self, run, **options)

    monkeypatch.setattr(Study, "measure", some)
    assert run(monkeypatch, "measure", str(study.path), "--all", "--repeats", "3") == 1
    said = capsys.readouterr()
    assert "failed: it does not load" in said.err
    assert "tiny, RTN 4-bit g8: " in said.out
    assert one.record.measurement("latency_ms") is not None


def test_follow_counts_what_ended(tmp_path):
    shown = io.StringIO()
    with toy_study(tmp_path / "study") as study:
        ended = follow(study, [RTN(4, group_size=8)], Console(file=shown, width=200))
        assert [r.state for r in study.runs] == [RunState.DONE] * 2
    assert ended == {"finished": 2}
    lines = shown.getvalue().splitlines()
    assert lines == ["[1/2] dense: done", "[2/2] RTN 4-bit g8: done"]


SWEEP = """
import sys
from pathlib import Path
from tests.toy import toy_study
from workbench.cli import commands as cli
from workbench.recipes import RTN

folder = Path(sys.argv[1])
cli.app.command("toy")(lambda: cli.run_sweep(
    lambda: toy_study(folder / "study"),
    [RTN(4, group_size=8), RTN(8, group_size=8)],
    folder / "plot.html", "the toy",
))
sys.argv = ["workbench", "toy"]
cli.main()
"""


def start(folder: Path, behaviour: str = "") -> subprocess.Popen[str]:
    (folder / "behaviour").write_text(behaviour)
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TOY_BEHAVIOUR": str(folder / "behaviour"), "PYTHONPATH": os.getcwd()},
        # A shell's background jobs ignore Ctrl-C, and so would their children.
        preexec_fn=None if os.name == "nt" else hear_interrupts,
    )


def hear_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_sweep_prints_its_table_and_writes_its_plot(tmp_path):
    process = start(tmp_path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "[3/3] RTN 8-bit g8: done" in err
    assert "Wrote the plot" in out
    assert (tmp_path / "plot.html").is_file()


def test_a_failed_run_makes_the_exit_code_1(tmp_path):
    process = start(tmp_path, "fail")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "cannot allocate 3 TB" in err
    assert "failed" in out
    assert "Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="SIGINT of one process only exists on POSIX")
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path):
    process = start(tmp_path)
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "[1/3]" in line:
            break
    (tmp_path / "behaviour").write_text("sleep")
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "Cancelling" in err
    assert "Cancelled. " in out
    assert "run the toy again to go on" in out
    assert "Traceback" not in err
    (tmp_path / "behaviour").write_text("")
    process = start(tmp_path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "done before" in err or "[1/2]" in err


@pytest.mark.parametrize("name", ["plot.pdf", "."])
def test_a_plot_file_that_cannot_be_is_refused_before_anything_runs(name: str) -> None:
    with pytest.raises(ConfigError, match=r"ends with \.html"):
        cli.run_sweep(lambda: pytest.fail("the study was made"), [], Path(name), "again")
