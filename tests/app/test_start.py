"""Tests of the first screen, and of the magic, without a browser."""

from __future__ import annotations

import gc
import inspect
import json
import shutil
import threading
import time
from datetime import datetime

import pandas as pd
import pytest
from ipywidgets.widgets.widget import _instances

import workbench as wb
from tests.tasks.test_vectors import beir_folder, pairs
from tests.toy import CALIBRATION, toy_model, toy_study, toy_task
from workbench.app import recorded_study
from workbench.app.magics import workbench_magic
from workbench.app.panels.start import StartPanel
from workbench.app.parts.task_kinds import ExtractionKind, SummarizationKind
from workbench.app.workbench import _OPEN, EXPLORE, START, Workbench
from workbench.errors import ConfigError
from workbench.recipes.recipe import Recipe
from workbench.study import Study


@pytest.fixture
def ready():
    return []


@pytest.fixture
def panel(ready, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return StartPanel(lambda *found: ready.append(found))


def until(is_true, seconds=60):
    for _ in range(int(seconds * 20)):
        if is_true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come true")


def test_without_anything_the_first_screen_is_shown():
    bench = Workbench()
    assert bench.nav.value == START
    bench.nav.value = EXPLORE
    assert bench.nav.value == START
    assert "Start or open a study first" in bench.notice.text
    assert "shown while its kernel runs" in bench._saved()["text/html"]
    assert bench.code() == "model = wb.load_model('demo')\ntask = wb.load_task(\"demo\")"


def test_a_path_brings_every_point_back(tmp_path):
    study = toy_study(tmp_path / "study")
    study.run(wb.RTN(4, group_size=32))
    study.close()
    bench = wb.Workbench(path=tmp_path / "study")
    assert bench.nav.value == EXPLORE
    assert {r.id for r in bench.study.records} == {r.id for r in study.records}
    assert "RTN 4-bit g32" in bench.panels.table.widget.html
    assert Workbench(path=tmp_path / "none").study is None


@pytest.mark.slow
def test_two_notebooks_on_one_study_see_each_others_runs(tmp_path):
    study = toy_study(tmp_path / "study")
    study.run([])
    first = Workbench(path=tmp_path / "study")
    _OPEN.clear()  # as in another kernel
    second = Workbench(path=tmp_path / "study")
    for bench, bits in ((first, 4), (second, 3)):
        bench.panels.recipe.form.value = wb.RTN(bits, group_size=32)
        bench.panels.recipe.run.click()
    assert first.study.wait(100)
    assert second.study.wait(100)
    for bench in (first, second):
        bench.refresh()
        bench.panels.table.refresh.flush()
        assert "RTN 4-bit g32" in bench.panels.table.widget.html
        assert "RTN 3-bit g32" in bench.panels.table.widget.html
        bench.study.close()


def test_a_given_model_is_started_with_a_text_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text(
        "\n\n".join(f"the fox number {i} jumps over the dog " * 20 for i in range(30))
    )
    bench = Workbench(toy_model())
    bench.start.task.kind.value = "texts"
    bench.start.task.data_path.value = "corpus.txt"
    until(lambda: "the fox number 0" in bench.start.task.preview.value)
    bench._app.begin = lambda: None  # running it is not what is tested
    bench.start.path.value = "runs/mine"
    bench.start.start.click()
    assert bench.start.start.disabled
    until(lambda: bench.study is not None and bench.nav.value == EXPLORE)
    assert bench.study.path == tmp_path / "runs" / "mine"
    assert "LanguageModeling" in bench.start.code()
    bench.study.close()


def test_a_table_is_previewed_and_its_columns_are_guessed(panel, tmp_path):
    (tmp_path / "tickets.csv").write_text(
        "id,question,intent\n" + "".join(f"{i},where is <my> card {i}?,lost\n" for i in range(9))
    )
    panel.task.kind.value = "table"
    panel.task.data_path.value = "tickets.csv"
    until(lambda: panel.task.preview.value)
    assert "where is &lt;my&gt; card 0?" in panel.task.preview.value
    assert (panel.task.chosen.text.value, panel.task.chosen.label.value) == ("question", "intent")
    assert "text='question', label='intent'" in panel.code()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("one.csv", b"text\nhello\n", "needs two"),
        ("empty.csv", b"text,label\n", "no rows"),
        ("broken.csv", b'a,b\n"never closed,x\n1,2,3\n', "cannot be read as csv: line 2"),
        ("binary.csv", bytes(range(256)) * 4, "is not text in utf-8"),
        ("missing.csv", None, "There is no file"),
    ],
)
def test_a_bad_file_is_a_message_beside_its_field(panel, tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    panel.task.kind.value = "table"
    panel.task.data_path.value = name
    until(lambda: panel.task.preview.value)
    assert says in panel.task.preview.value
    assert 'role="alert"' in panel.task.preview.value
    assert panel.task.chosen.text.options == ()


def test_an_upload_is_kept_beside_the_notebook(panel, tmp_path):
    rows = b"text,label\n" + b"a text,x\n" * 3
    panel.task.kind.value = "table"
    panel.task.upload.value = (
        {"name": "../t.csv", "type": "text/csv", "size": len(rows), "content": rows,
         "last_modified": datetime.now()},
    )  # fmt: skip
    until(lambda: panel.task.preview.value)
    assert (tmp_path / "uploads" / "t.csv").read_bytes() == rows  # never outside of the folder
    assert panel.task.chosen.label.value == "label"


def test_what_is_missing_is_said_before_anything_is_loaded(panel, ready):
    for kind, says in (("texts", "No data"), ("table", "No data")):
        panel.task.kind.value = kind
        panel.start.click()
        assert says in panel.notice.text
    panel.task.kind.value = "demo"
    panel.model_kind.value = "ref"
    panel.start.click()
    assert "No model" in panel.notice.text
    panel.open.click()
    assert "No folder" in panel.open_notice.text
    assert ready == []


def test_what_fails_in_the_background_is_told_beside_the_button(panel):
    panel.open_path.value = "nothing/here"
    panel.open.click()
    until(lambda: panel.open_notice.text)
    assert "There is no folder" in panel.open_notice.text
    until(lambda: not panel.open.disabled)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_recording_is_shown_and_not_changed():
    before = files_of(recorded_study.FOLDER)
    assert sum(map(len, before.values())) < 2_000_000
    bench = Workbench()
    done = threading.Event()
    take = bench.start._on_ready
    bench.start._on_ready = lambda *found: (take(*found), done.set())
    bench.start.look.click()
    assert done.wait(60), bench.notice.text
    assert "A recording" in bench.head.value
    assert len([r for r in bench.study.records if r.size_bytes]) >= 12
    assert not bench.study.lacks_predictions()
    assert bench.panels.recipe.run.disabled
    assert bench.panels.queue.pending == ()
    after = files_of(recorded_study.FOLDER)
    assert before == after


def test_the_copy_of_the_recording_goes_with_its_study():
    study = recorded_study.open_recorded()
    folder = study.path.parent
    assert folder.is_dir()
    study.close()
    del study
    gc.collect()
    assert not folder.exists()


def test_a_cell_that_is_run_again_takes_over_its_processes(tmp_path):
    with toy_study(tmp_path / "study") as study:
        study.run([])
    first = Workbench(path=tmp_path / "study")
    first._session.submit([Recipe.of(wb.RTN(4, group_size=32))])
    worker = first.study._workspace.worker.pid
    again = Workbench(path=tmp_path / "study")
    assert again.study is first.study
    assert again._session.inspector is first._session.inspector
    assert again.study.wait(100)
    until(lambda: "RTN 4-bit g32 done" in again.panels.queue.status.value)
    again.panels.table.refresh.flush()
    assert "RTN 4-bit g32" in again.panels.table.widget.html
    assert again.study._workspace.worker.pid == worker
    first.close()
    assert again.study.is_open  # it is no longer the first one's to end
    again.close()
    assert not again.study.is_open
    assert Workbench(path=tmp_path / "study").study is not again.study


def test_a_study_that_is_displayed_again_adds_no_widgets(tmp_path):
    study = toy_study(tmp_path / "study")
    study.run([])
    others = len(_instances)  # of panels that tests made alone
    benches = [Workbench(study)]
    once, state = len(_instances), saved_bytes()
    for _ in range(2):
        benches += [Workbench(study), Workbench(path=tmp_path / "study"), Workbench()]
    benches[-1].start.open_path.value = str(tmp_path / "study")
    benches[-1]._app.begin = lambda: None
    benches[-1].start.open.click()  # from a start screen, which it then takes the place of
    until(lambda: benches[-1].nav.value == EXPLORE)
    assert all(bench.panels is benches[0].panels for bench in benches)
    assert len(_instances) - once < 12
    assert saved_bytes() < 1.02 * state
    benches[0].close()  # not its own to close: a later cell shows it
    assert benches[0].widget.comm is not None
    benches[-1].close()
    assert len(_instances) - others < 200  # of a thousand: those that no box holds
    assert study.is_open  # it was given
    study.close()


def saved_bytes():
    return sum(
        len(json.dumps(widget.get_state(drop_defaults=True), default=str))
        for widget in list(_instances.values())
    )


def test_a_folder_that_is_another_study_now_is_not_taken_for_the_earlier_one(tmp_path):
    toy_study(tmp_path / "study").close()
    first = Workbench(path=tmp_path / "study")
    shutil.rmtree(tmp_path / "study")
    other = toy_task(sequence_length=16)
    Study(toy_model(), other, tmp_path / "study", calibration=CALIBRATION).close()
    again = Workbench(path=tmp_path / "study")
    assert again.study is not first.study
    assert not first.study.is_open  # its worker has the task of the deleted one
    assert again.study.is_open
    first.close()
    assert again.study.is_open
    again.close()


def test_a_study_that_is_opened_again_where_it_is_shown_goes_on(tmp_path):
    toy_study(tmp_path / "study").close()
    bench = Workbench(path=tmp_path / "study")
    first, queue = bench.study, bench.panels.queue
    bench.nav.value = "start"
    bench.start.open_path.value = str(tmp_path / "study")
    bench._app.begin = lambda: None
    bench.start.open.click()
    until(lambda: bench.nav.value == "explore")
    assert bench.study is first
    assert bench.panels.queue is queue
    assert first.is_open
    bench.close()


def test_closing_ends_what_was_opened_and_leaves_what_was_given(tmp_path):
    study = toy_study(tmp_path / "study")
    toy_study(tmp_path / "other").close()
    given, own = Workbench(study), Workbench(path=tmp_path / "other")
    given.close()
    own.close()
    assert own.widget.comm is None
    assert study.is_open
    assert not own.study.is_open
    study.close()


def test_a_study_that_is_replaced_is_closed(tmp_path):
    for name in ("one", "two"):
        toy_study(tmp_path / name).close()
    bench = Workbench(path=tmp_path / "one")
    first, figure = bench.study, bench.panels.frontier.figure
    bench.start.open_path.value = str(tmp_path / "two")
    bench._app.begin = lambda: None
    bench.start.open.click()
    until(lambda: bench.study is not first)
    until(lambda: not first.is_open)
    assert figure.comm is None
    assert bench.study.is_open
    bench.close()


def test_a_copy_of_the_recording_can_be_gone_on_with(panel, ready, tmp_path):
    panel.path.value = "runs/mine"
    panel.copy.click()
    until(lambda: ready)
    ((study, setup, is_recorded),) = ready
    assert study.path == tmp_path / "runs" / "mine"
    assert not is_recorded
    assert "load_model" in setup
    until(lambda: not panel.copy.disabled)
    panel.copy.click()
    until(lambda: panel.open_notice.text)
    assert "is there already" in panel.open_notice.text


def test_the_magic_takes_a_model_and_a_folder(tmp_path):
    bench = workbench_magic(f"some/model path={tmp_path / 'mine'}")
    assert bench.start.model_ref.value == "some/model"
    assert bench.start.path.value == str(tmp_path / "mine")
    assert workbench_magic("").start.model_kind.value == "demo"
    assert workbench_magic(r"path='C:\new runs\#1'").start.path.value == r"C:\new runs\#1"
    with pytest.raises(ConfigError, match="at most a model and a folder"):
        workbench_magic("one two")


def test_the_extension_of_ipython_registers_the_magic():
    class Shell:
        def register_magic_function(self, function, kind, name):
            self.registered = (function, kind, name)

    shell = Shell()
    wb.load_ipython_extension(shell)
    assert shell.registered == (workbench_magic, "line", "workbench")


def test_an_upload_of_the_same_name_leaves_the_earlier_one(panel, tmp_path):
    def file(content):
        stamp = datetime.now()
        return {"name": "t.csv", "type": "text/csv", "size": len(content), "content": content,
                "last_modified": stamp}  # fmt: skip

    one, two = b"text,label\n" + b"a text,x\n" * 3, b"text,label\n" + b"other,y\n" * 3
    for content in (one, two, one):
        panel.task.upload.value = (file(content),)
    assert sorted(p.name for p in (tmp_path / "uploads").iterdir()) == ["t-2.csv", "t.csv"]
    assert (tmp_path / "uploads" / "t.csv").read_bytes() == one
    assert (tmp_path / "uploads" / "t-2.csv").read_bytes() == two
    panel.task.kind.value = "table"
    assert "uploads/t.csv" in panel.code()


def test_further_columns_of_a_table_are_slices(panel, tmp_path):
    rows = "text,label,channel\n" + "".join(f"text {i},x,mail\n" for i in range(9))
    (tmp_path / "t.csv").write_text(rows)
    panel.task.kind.value = "table"
    panel.task.data_path.value = "t.csv"
    until(lambda: panel.task.preview.value)
    assert "columns=" not in panel.code()
    panel.task.chosen.columns.value = ("channel", "label")
    assert "columns=['channel'])" in panel.code()


@pytest.mark.filterwarnings("ignore:.*rows, so scores")
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_fields_and_summaries_of_the_users_rows_become_tasks(panel, tmp_path, suffix):
    frame = pd.DataFrame(
        {
            "id": range(40),
            "letter": [f"Dear team, Ada <{i}> pays {i} euros for the red car" for i in range(40)],
            "name": [f"Ada {i}" for i in range(40)],
            "amount": [str(i) for i in range(40)],
        }
    )
    path = tmp_path / f"letters.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    form = panel.task
    form.kind.value = "extraction"
    form.data_path.value = path.name
    until(lambda: form.preview.value)
    assert "Ada &lt;0&gt; pays" in form.preview.value
    assert (form.chosen.text.value, form.chosen.fields.value) == ("letter", ("name", "amount"))
    form.chosen.solved.value = 1
    form.chosen.prompt.value = "no place"
    with pytest.raises(wb.DataError, match=r"no \{text\}"):
        form.maker()
    form.chosen.prompt.value = "Read: {text}\nWho:"
    task = form.maker()()
    assert (task.name, task.options["shots"], task.options["max_new_tokens"]) == ("letters", 1, 32)
    assert task.options["template"] == "Read: {text}\nWho:"
    scope = {"wb": wb}
    exec(form.code(), scope)
    assert scope["task"].fingerprint == task.fingerprint

    form.kind.value = "summarization"
    until(lambda: form.preview.value)
    assert (form.chosen.text.value, form.chosen.summary.value) == ("letter", "name")
    exec(form.code(), scope)
    assert type(scope["task"]).__name__ == "Summarization"
    form.chosen.summary.value = "letter"
    with pytest.raises(wb.DataError, match="another one"):
        form.maker()


def test_a_task_of_the_harness_is_named_not_uploaded(panel):
    panel.task.kind.value = "lm_eval"
    assert panel.task.upload.layout.display == "none"
    panel.start.click()
    assert "No task was given" in panel.notice.text
    form = panel.task.chosen
    form.task.value = " arc_easy "
    assert panel.task.code() == "task = wb.HarnessTask('arc_easy')"
    form.solved.value, form.calibration.value = 0, "corpus.txt"
    assert panel.task.code() == (
        "task = wb.HarnessTask('arc_easy', shots=0, calibration='corpus.txt')"
    )
    known = inspect.signature(wb.HarnessTask.__init__).parameters
    assert set(form.arguments()) <= set(known)


def test_pairs_and_a_search_are_started_without_code(panel, tmp_path):
    path = tmp_path / "sts.csv"
    pd.DataFrame({"id": range(60), **pairs()}).to_csv(path, index=False)
    form = panel.task
    form.kind.value = "similarity"
    form.data_path.value = path.name
    until(lambda: form.preview.value)
    fields = form.chosen
    assert {fields.text.value, fields.other.value} == {"text", "other"}
    assert fields.score.value == "score"
    scope = {"wb": wb}
    exec(form.code(), scope)
    assert scope["task"].fingerprint == form.maker()().fingerprint
    fields.other.value = fields.text.value
    with pytest.raises(wb.DataError, match="three columns"):
        form.maker()

    form.kind.value = "search"
    with pytest.raises(wb.DataError, match="No folder"):
        form.maker()
    form.chosen.folder.value = str(beir_folder(tmp_path / "facts"))
    exec(form.code(), scope)
    assert scope["task"].fingerprint == form.maker()().fingerprint
    assert form.maker()().name == "facts"


def test_the_prompts_of_the_form_are_those_of_the_tasks():
    for kind in (ExtractionKind, SummarizationKind):
        known = inspect.signature(getattr(wb, kind.makes).__init__).parameters
        for name in ("template", "shots", "max_new_tokens"):
            assert getattr(kind, name) == known[name].default


def test_a_messy_table_is_checked_and_its_bad_rows_skipped_without_code(panel, tmp_path):
    rows = [f"caf\xe9, no {i};{('lost', 'found')[i % 2]}" for i in range(40)]
    rows[7], rows[9] = "no label, at all;", "nor here;"
    (tmp_path / "messy.csv").write_text("text;label\n" + "\n".join(rows), encoding="latin-1")
    task = panel.task
    task.kind.value = "table"
    task.data_path.value = "messy.csv"
    until(lambda: task.preview.value)
    assert "caf\xe9, no 0" in task.preview.value, "separator and encoding are detected"
    assert task.skip.layout.display == "none"
    task.check.click()
    until(lambda: "2 rows cannot be used" in task.checked.value)
    assert "&#x27;lost&#x27;: 19" in task.checked.value or "&#x27;found&#x27;" in task.checked.value
    until(lambda: task.skip.layout.display != "none")
    task.skip.click()
    assert task.skip.layout.display == "none"
    assert "on_bad_rows='skip'" in panel.code()
    made = task.maker()()
    assert sum(len(part) for part in made.rows.values()) == 38
    task.chosen.encoding.value = "cp1252"
    until(lambda: "caf\xe9, no 0" in task.preview.value)
    assert "encoding='cp1252'" in panel.code()
    assert task.checked.value == "", "what was found belongs to what was read"
    task.chosen.delimiter.value = ","
    until(lambda: "messy.csv" in task.preview.value)  # what cannot be read so is said
