"""Task files of the harness: read safely, found by name, refused with what to do next."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import yaml

from tests import harnessed
from tests.harnessed import write_task
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import ConfigError, DataError
from workbench.models.load import load_model
from workbench.models.trusted_code import TRUSTED
from workbench.study import Study
from workbench.tasks import HarnessTask, load_task, task_from_dict
from workbench.tasks.harness.configs import _index, find_config, read_config
from workbench.tasks.harness.library import harness_folder
from workbench.tasks.harness.trusted_code import Code, check_code, check_trusted, hub_code

pytest.importorskip("lm_eval")

CODE = """
from pathlib import Path

Path(__file__).with_name("was_run").touch()


def score(doc, results):
    return {"length": float(len(results[0]))}
"""


@pytest.fixture(autouse=True)
def _apart(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setenv(TRUSTED, "")


def make(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return HarnessTask(path, **options)


def changed(path, text="", **keys):
    """Write a task file again with other keys, and text behind it."""
    config = yaml.safe_load(path.read_text()) | keys
    path.write_text(yaml.safe_dump(config, sort_keys=False) + text)
    return path


@pytest.fixture
def choices(tmp_path):
    return write_task(tmp_path, "choices", harnessed.MULTIPLE_CHOICE)


@pytest.fixture
def coded(tmp_path):
    """A task whose answers are scored by a function beside its file."""
    path = write_task(tmp_path, "coded", harnessed.GENERATION, counts=(6, 3, 5))
    (tmp_path / "scoring.py").write_text(CODE)
    metrics = [{"metric": "length", "aggregation": "mean", "higher_is_better": True}]
    config = yaml.safe_load(path.read_text())
    del config["filter_list"]
    path.write_text(yaml.safe_dump(config))
    return changed(path, "process_results: !function scoring.score\n", metric_list=metrics)


# -- code -------------------------------------------------------------------------------------


def test_functions_are_not_imported_without_the_users_word(coded, tmp_path):
    with pytest.raises(ConfigError, match=r"scoring.score in .*scoring.py.*trust_remote_code=True"):
        make(coded)
    assert not (tmp_path / "was_run").exists()
    make(coded, trust_remote_code=True)
    assert (tmp_path / "was_run").exists()


def test_a_word_is_for_this_session_and_for_these_bytes(coded, tmp_path, monkeypatch):
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 128
    model = load_model(hf_model.eval(), tiny_tokenizer())
    task = make(coded, trust_remote_code=True)
    outcomes = task.evaluate(model)
    lengths = [len(str(answer)) for answer in outcomes["answer"]]
    assert outcomes["length"].tolist() == lengths
    saved = task.save(tmp_path)
    assert task_from_dict(saved, tmp_path).evaluate(model)["length"].tolist() == lengths
    monkeypatch.setenv(TRUSTED, "")  # as in another session
    monkeypatch.setattr("workbench.tasks.harness.task.write_answers", None)  # not even asked
    with pytest.raises(ConfigError, match="not imported without your word"):
        task_from_dict(saved, tmp_path).evaluate(model)
    make(coded, trust_remote_code=True)
    (tmp_path / "scoring.py").write_text(CODE + "\n# changed\n")
    with pytest.raises(ConfigError, match="has changed since you trusted it"):
        task_from_dict(saved, tmp_path).evaluate(model)


def test_a_trusted_file_that_does_not_run_is_named(coded, tmp_path):
    for broken, said in (("def score(", "SyntaxError"), ("import nowhere", "ModuleNotFoundError")):
        (tmp_path / "scoring.py").write_text(broken)
        with pytest.raises(ConfigError, match=rf"imported from '?.*scoring\.py.*{said}"):
            make(coded, trust_remote_code=True)


def test_a_study_finds_trusted_functions_that_were_moved(coded, tmp_path, monkeypatch):
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 128
    model = load_model(hf_model.eval(), tiny_tokenizer())
    Study(model, make(coded, trust_remote_code=True), tmp_path / "study").close()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in [*tmp_path.glob("coded*"), tmp_path / "scoring.py"]:
        file.rename(moved / file.name)
    opened = Study.open(tmp_path / "study")
    with pytest.raises(ConfigError, match="No such file"):
        opened.task.evaluate(model)
    opened.close()
    Study(model, make(moved / "coded.yaml", trust_remote_code=True), tmp_path / "study").close()
    opened = Study.open(tmp_path / "study")  # as a worker process does, which inherits the word
    assert len(opened.task.evaluate(model)) == 5
    opened.close()
    monkeypatch.setenv(TRUSTED, "")  # as in another session
    with pytest.raises(ConfigError, match="not imported without your word"):
        Study.open(tmp_path / "study").task.evaluate(model)


def test_documents_are_scored_by_a_tasks_own_function(tmp_path, monkeypatch):
    """A function that the harness calls with each document's log-likelihoods."""
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 128
    model = load_model(hf_model.eval(), tiny_tokenizer())
    (tmp_path / "own.py").write_text(
        "def text(doc, results):\n    return {'word_perplexity': (results[0], 7)}\n\n"
        "def best(doc, results):\n    return {'best': max(ll for ll, _ in results)}\n"
    )
    weighted = {"metric": "word_perplexity", "aggregation": "weighted_perplexity"}
    path = write_task(tmp_path, "text", harnessed.ROLLING, counts=(4, 2, 6))
    changed(path, "process_results: !function own.text\n", metric_list=[weighted])
    task = make(path, trust_remote_code=True)
    outcomes = task.evaluate(model)
    assert len(outcomes) > 6  # windows
    expected = np.exp(outcomes["loss"].sum() / (7 * 6))
    assert task.measure(outcomes)[0].value == pytest.approx(expected, rel=1e-9)
    plain = make(write_task(tmp_path, "plain", harnessed.MULTIPLE_CHOICE, counts=(4, 2, 6)))
    mean = {"metric": "best", "aggregation": "mean", "higher_is_better": True}
    path = write_task(tmp_path, "choice", harnessed.MULTIPLE_CHOICE, counts=(4, 2, 6))
    changed(path, "process_results: !function own.best\n", metric_list=[mean])
    task = make(path, trust_remote_code=True)
    outcomes = task.evaluate(model)
    assert task.measure(outcomes)[0].metric == "best"
    assert outcomes["prediction"].tolist() == plain.evaluate(model)["prediction"].tolist()
    assert np.all(outcomes["best"] >= -outcomes["loss"] - 1e-9)


@pytest.mark.parametrize(
    ("made", "one_number", "expected"),
    [
        ("{'answer': doc['answer']}", "sum(item['answer'] for item in items)", 8),
        ("([doc['name'], 'b'], 'b')", "sum(b in names for names, b in items)", 5),
        ("[1.0] * (doc['answer'] + 1)", "sum(map(sum, items))", 13),
        ("(1, 2) if doc['answer'] > 1 else None", "sum(one for one, _ in items)", 3),
        ("float(doc['answer']) if doc['answer'] > 1 else None", "max(items) + len(items)", 6),
    ],
)
def test_what_a_task_makes_of_documents_reaches_its_own_function(
    tmp_path, made, one_number, expected
):
    """Mappings, lists of different lengths and nothing at all come through the record."""
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 128
    model = load_model(hf_model.eval(), tiny_tokenizer())
    (tmp_path / "own.py").write_text(
        f"def score(doc, results):\n    made = {made}\n"
        "    return {} if made is None else {'own': made}\n\n"
        f"def one(items):\n    return {one_number}\n"
    )
    path = write_task(tmp_path, "choice", harnessed.MULTIPLE_CHOICE, counts=(4, 2, 5))
    changed(path, metric_list=[{"metric": "own", "aggregation": "FN", "higher_is_better": True}])
    text = path.read_text().replace("aggregation: FN", "aggregation: !function own.one")
    path.write_text(text + "process_results: !function own.score\n")
    task = make(path, trust_remote_code=True)
    answers = [doc["answer"] for doc in harnessed.documents(5, 6)]
    assert answers == [0, 3, 2, 2, 1]  # what the expected numbers are of
    assert task.measure(task.evaluate(model))[0].value == expected


def test_a_median_and_a_perplexity_are_of_documents_not_of_their_windows(tmp_path):
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 128
    model = load_model(hf_model.eval(), tiny_tokenizer())
    (tmp_path / "own.py").write_text(
        "def score(doc, results):\n    return {'own': results[0] / 100, 'ppl': results[0] / 100}\n"
    )
    path = write_task(tmp_path, "text", harnessed.ROLLING, counts=(4, 2, 5))
    named = (("own", "median"), ("ppl", "perplexity"))
    metrics = [
        {"metric": name, "aggregation": how, "higher_is_better": False} for name, how in named
    ]
    changed(path, "process_results: !function own.score\n", metric_list=metrics)
    task = make(path, trust_remote_code=True)
    outcomes = task.evaluate(model)
    assert len(outcomes) > 5  # windows
    logs = -np.bincount(outcomes["document"], weights=outcomes["loss"]) / 100
    found = {m.metric: m.value for m in task.measure(outcomes)}
    assert found["own"] == pytest.approx(np.median(logs))
    assert found["ppl"] == pytest.approx(np.exp(-logs.mean()))


def test_a_metric_takes_no_column_that_outcomes_have(tmp_path):
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 128
    model = load_model(hf_model.eval(), tiny_tokenizer())
    (tmp_path / "own.py").write_text(
        "def score(doc, results):\n    return {'loss': 7.0, 'label': 9.0}\n"
    )
    path = write_task(tmp_path, "choice", harnessed.MULTIPLE_CHOICE, counts=(4, 2, 5))
    metrics = [{"metric": name, "aggregation": "mean"} for name in ("loss", "label")]
    changed(path, metric_list=[{**metric, "higher_is_better": False} for metric in metrics])
    path.write_text(path.read_text() + "process_results: !function own.score\n")
    task = make(path, trust_remote_code=True)
    outcomes = task.evaluate(model)
    assert {m.metric: m.value for m in task.measure(outcomes)} == {
        "task_loss": 7.0,
        "task_label": 9.0,
    }
    assert outcomes["label"].tolist() == [0, 3, 2, 2, 1]
    assert not np.any(outcomes["loss"] == 7.0)


def test_what_cannot_be_made_one_number_says_so(choices):
    f1 = {"metric": "f1", "aggregation": "f1", "higher_is_better": True}  # of two labels, not four
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 128
    task = make(changed(choices, metric_list=[f1]))
    outcomes = task.evaluate(load_model(hf_model.eval(), tiny_tokenizer()))
    with pytest.raises(ConfigError, match=r"one number of all documents' f1: .*multiclass"):
        task.measure(outcomes)


def test_a_recorded_task_reaches_no_code_outside_of_the_harness(tmp_path, coded):
    (tmp_path / "evil.py").write_text(CODE)
    relative = os.path.relpath(tmp_path / "evil.py", harness_folder())
    with pytest.raises(ConfigError, match="lies outside of the harness"):
        Code("evil.score", relative, "").load()
    assert not (tmp_path / "was_run").exists()


def test_a_recorded_metric_of_the_hub_is_not_run_without_the_users_word():
    config = {"task": "own", "metric_list": [{"metric": "acc", "hf_evaluate": True}]}
    with pytest.raises(ConfigError, match="not run without your word"):
        check_trusted(config)
    check_code(config, trust=True)
    check_trusted(config)


def test_code_of_the_harness_that_loads_programs_of_the_hub_needs_a_word(monkeypatch):
    """Its own functions are its own code, but not what they fetch."""
    other = Code("utils_perplexity.doc_to_target", "tasks/olaph/utils_perplexity.py", "")
    assert hub_code({"doc_to_target": other}) == [other.file]  # by what it imports
    config = read_config(harness_folder() / "tasks" / "noticia" / "noticia.yaml")
    with pytest.raises(ConfigError, match=r"tasks/noticia/utils\.py, which fetches programs"):
        check_code(config, trust=False)
    with pytest.raises(ConfigError, match=r"not done without your word"):
        check_trusted(config)
    check_code(config, trust=True)
    check_trusted(config)
    check_code(
        read_config(harness_folder() / "tasks" / "hellaswag" / "hellaswag.yaml"), trust=False
    )


def test_a_function_of_an_installed_module_is_not_imported_either(choices):
    changed(choices, "process_docs: !function os.system\n")
    with pytest.raises(ConfigError, match=r"os.system in an installed module"):
        make(choices)


def test_templates_do_not_reach_python(choices, tmp_path):
    stolen = tmp_path / "stolen"
    template = (
        "{{ question.__class__.__mro__[1].__subclasses__() }}"
        "{{ cycler.__init__.__globals__.os.system('touch " + str(stolen) + "') }}"
    )
    changed(choices, doc_to_text=template)
    with pytest.raises(DataError, match="reaches for Python's internals"):
        make(choices)
    assert not stolen.exists()


def test_the_sandbox_ends_with_the_task(choices):
    import lm_eval.utils
    from jinja2.sandbox import SandboxedEnvironment

    make(choices)
    assert not isinstance(lm_eval.utils.env, SandboxedEnvironment)


def test_yaml_makes_no_objects(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("task: own\nbad: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(DataError, match="no YAML that can be read safely"):
        make(path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dataset_path": "pandas"}, "may run code of the file"),
        ({"unsafe_code": True}, "runs the code that a model writes"),
        ({"metric_list": [{"metric": "somebodys_metric"}]}, "fetched from the Hugging Face hub"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "trust_remote_code=True"),
        ({"output_type": "chat"}, "supported are multiple_choice, loglikelihood"),
        ({"doc_to_image": "picture"}, "images or sounds"),
        ({"use_prompt": "promptsource:x"}, "promptsource"),
        ({"class": "x"}, "Python class of its own"),
        ({"repeats": 3}, "3 times"),
        ({"generation_kwargs": {"do_sample": True, "temperature": 0.7}}, "by chance"),
        ({"generation_kwargs": {"temperature": 0.7}}, "by chance"),
        ({"generation_kwargs": {"num_beams": 4}}, "by beams"),
        ({"generation_kwargs": {"penalty_alpha": 1}}, "not supported: penalty_alpha"),
    ],
)
def test_what_is_not_supported_says_so(choices, keys, message):
    with pytest.raises(ConfigError, match=message):
        make(changed(choices, **keys))


# -- finding ----------------------------------------------------------------------------------


def test_an_include_is_read_beneath_its_own_keys(tmp_path):
    (tmp_path / "_common").write_text("output_type: multiple_choice\ndoc_to_text: a\n")
    (tmp_path / "own.yaml").write_text("include: _common\ntask: own\ndoc_to_text: b\n")
    config = read_config(tmp_path / "own.yaml")
    assert (config["output_type"], config["doc_to_text"]) == ("multiple_choice", "b")
    (tmp_path / "_common").write_text("include: own.yaml\n")
    with pytest.raises(DataError, match="includes itself"):
        read_config(tmp_path / "own.yaml")


def some_of_the_index(folder):
    """Return a part of the harness's own index; the whole takes seconds to read."""
    from lm_eval.tasks import TaskManager

    if folder is not None:
        return _index(folder)
    names = ("arc", "hellaswag", "mmlu/default")
    paths = [harness_folder() / "tasks" / name for name in names]
    return dict(TaskManager(include_path=paths, include_defaults=False).task_index)


@pytest.mark.slow
def test_the_whole_index_has_the_well_known_names():
    assert len(_index(None)) > 5000
    assert find_config("gsm8k")["output_type"] == "generate_until"
    with pytest.raises(DataError, match=r"Did you mean .*hellaswag"):
        find_config("hellaswagg")


def test_names_groups_and_files_that_are_not_there(monkeypatch):
    monkeypatch.setattr("workbench.tasks.harness.configs._index", some_of_the_index)
    assert find_config("lm-eval:arc_easy")["dataset_path"] == "allenai/ai2_arc"
    with pytest.raises(DataError, match="Did you mean arc_easy"):
        find_config("arc_eazy")
    with pytest.raises(DataError, match=r"'ai2_arc' is a group of tasks: arc_challenge, arc_easy"):
        find_config("ai2_arc")
    with pytest.raises(DataError, match=r"'mmlu' is a group of tasks: mmlu_stem, mmlu_other"):
        load_task("lm-eval:mmlu")
    with pytest.raises(DataError, match=r"There is no task file 'nowhere/own.yaml'"):
        load_task("nowhere/own.yaml")
    codes = find_config("hellaswag")["process_docs"]
    assert codes.is_harness  # the harness's own code needs no word


def test_a_folder_of_task_files_goes_before_the_harness(choices, tmp_path):
    assert find_config("choices", include_path=tmp_path)["!file"] == str(choices.resolve())


def test_a_group_file_lists_its_tasks(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text("group: both\ntask: [one, {task: two}]\n")
    with pytest.raises(DataError, match=r"'both' is a group of tasks: one, two"):
        make(path)


def test_data_are_found_beside_the_task_file_or_missed_by_name(choices, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert len(make(choices).rows["evaluation"]) == 40
    (tmp_path / "choices-test.jsonl").unlink()
    with pytest.raises(DataError, match="beside the task file"):
        make(choices)


def test_data_of_the_same_name_in_the_working_folder_are_told(choices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HarnessTask(choices)
    write_task(tmp_path / "other", "choices", harnessed.MULTIPLE_CHOICE, counts=(60, 20, 39))
    monkeypatch.chdir(tmp_path / "other")
    with pytest.warns(UserWarning, match=r"choices-\w+\.jsonl is in the working folder"):
        assert len(HarnessTask(choices).rows["evaluation"]) == 39


def test_data_beside_the_task_file_may_be_named_by_a_pattern(choices, monkeypatch):
    monkeypatch.chdir("/")
    files = {"train": "choices-t*n.jsonl", "test": ["choices-t*t.jsonl"]}
    changed(choices, dataset_kwargs={"data_files": files}, validation_split="train")
    assert {part: len(rows) for part, rows in make(choices).rows.items()} == {
        "evaluation": 40,
        "calibration": 48,
        "validation": 12,
    }


def test_a_template_that_names_no_field_says_so(choices):
    with pytest.raises(DataError, match=r"'quest' is undefined.*name fields that its documents"):
        make(changed(choices, doc_to_text="{{quest}}"))


def test_a_dataset_of_the_hub_without_network(choices):
    code = (
        "import sys\nfrom workbench.errors import DataError\nfrom workbench import HarnessTask\n"
        "try:\n    HarnessTask(sys.argv[1])\nexcept DataError as e:\n    print('said:', e)"
    )
    changed(choices, dataset_path="nobody/nothing", dataset_kwargs={})
    done = subprocess.run(
        [sys.executable, "-c", code, str(choices)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "said:" in done.stdout, done.stderr
    assert "the dataset 'nobody/nothing'" in done.stdout
    assert "Without network only datasets that were loaded before" in done.stdout


def test_a_missing_extra_says_how_to_install_it(choices, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "compression-workbench\[lm-eval\]"'):
        HarnessTask(choices)


def test_a_split_that_is_not_there_is_named(choices):
    with pytest.raises(DataError, match="have no split 'tests'"):
        make(changed(choices, test_split="tests"))


@pytest.mark.parametrize("named", ["!function [utils, score]", "!function score"])
def test_a_function_without_a_module_is_no_function(choices, named):
    with pytest.raises(DataError, match=r"names a function as in utils\.score"):
        make(changed(choices, f"process_docs: {named}\n"), trust_remote_code=True)


def test_shots_that_the_task_does_not_take(choices, tmp_path):
    with pytest.raises(ConfigError, match=r"has 60 documents to draw .* 61 are asked for"):
        make(choices, shots=61)
    with pytest.raises(ConfigError, match="max_evaluation_examples='5' is not accepted"):
        make(choices, max_evaluation_examples="5")
    with pytest.raises(ConfigError, match="shots=-1 is not accepted"):
        make(choices, shots=-1)
    with pytest.raises(ConfigError, match="fixes num_fewshot: 0"):
        make(changed(choices, num_fewshot=0), shots=2)
    text = write_task(tmp_path, "text", harnessed.ROLLING)
    with pytest.raises(ConfigError, match="no solved examples"):
        make(text, shots=1)
